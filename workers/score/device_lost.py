"""A device that does not answer any more: the worker ends, and no task is to blame."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pairmill.workers.errors import Refused

NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def short_of_memory(error: RuntimeError) -> bool:
    """Whether a device lacked memory: torch's allocator says so by its own error, the driver and
    cuBLAS, which take memory beside it, by one of their codes. The device is well after either."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in NO_MEMORY)


@contextmanager
def noticed(device: torch.device) -> Iterator[None]:
    """Raises Refused where a computation on it ends as it does when a GPU has gone."""
    try:
        yield
    except RuntimeError as error:
        if short_of_memory(error):
            raise
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
            said = " ".join(str(error).split())[:200]
            raise Refused(
                f"the device {device} stopped working; the task is handed back, and this"
                f" worker ends ({said})"
            ) from None
        raise

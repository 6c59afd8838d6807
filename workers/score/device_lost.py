"""A device that does not answer any more: the worker ends, and no task is to blame."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pairmill.workers.errors import Refused


@contextmanager
def noticed(device: torch.device) -> Iterator[None]:
    """Raises Refused where a computation on it ends as it does when a GPU has gone."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
            said = " ".join(str(error).split())[:200]
            raise Refused(
                f"the device {device} stopped working; the task is handed back, and this"
                f" worker ends ({said})"
            ) from None
        raise

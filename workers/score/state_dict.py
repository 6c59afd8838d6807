"""Weights as torch.save writes them: tensors by their names."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pairmill.workers.errors import Refused


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A state dict as torch.save writes it.

    Raises Refused, with a sentence, for anything but named tensors.
    """
    found = load_plain(path)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise Refused(f"{path} is no state dict: it must hold tensors by their names, and no more")
    return found


def load_plain(path: Path) -> Any:
    """Tensors and plain values as torch.save writes them; no pickle that could run code is ever
    loaded. Raises Refused, with a sentence."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # torch's own text advises to load it unsafely
        raise Refused(
            f"{path} is no checkpoint of plain tensors, and none else is loaded"
        ) from None
    except Exception as error:
        # for a file that is none, torch raises nearly anything
        said = " ".join(str(error).split())[:200]
        raise Refused(f"cannot read {path}: {type(error).__name__}: {said}") from None

"""Heads from published files: LAION's aesthetic predictors and NSFW detectors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pairmill.ops.taggers import keras_model
from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import MAX_BYTES, Head
from pairmill.workers.score.layers import Layer
from pairmill.workers.score.state_dict import load_tensors

# Where the fully connected layers of LAION's aesthetic predictor V2 stand, dropout between them:
# https://github.com/christophschuhmann/improved-aesthetic-predictor, simple_inference.py. With its
# ReLUs (as a sibling was trained, and LAION's ViT-H/14 NSFW detector) they would stand elsewhere.
V2_LAYERS = (0, 2, 4, 6, 7)
KINDS = (
    ".safetensors (Pairmill's own), .pth or .pt (LAION's aesthetic predictors)"
    " or .zip (LAION's NSFW detector)"
)


def load(path: Path) -> Head:
    """The head of a file, told by its suffix: .safetensors, .pth, .pt or .zip.

    Raises Refused, with a sentence, for a file that is absent, broken or no head that is known.
    """
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    if path.suffix == ".zip":
        return keras_model.load(path)
    if path.stat().st_size > MAX_BYTES:
        raise Refused(f"the head {path} has {path.stat().st_size} bytes, and may have {MAX_BYTES}")
    if path.suffix == ".safetensors":
        return Head.from_bytes(path.read_bytes())
    if path.suffix in (".pth", ".pt"):
        return _state_dict(path, load_tensors(path))
    raise Refused(f"{path} is no head: one is {KINDS}")


def _state_dict(path: Path, tensors: dict[str, torch.Tensor]) -> Head:
    if tensors.keys() == {"weight", "bias"}:
        return Head([_layer(tensors, "")])
    wanted = {f"layers.{i}.{part}" for i in V2_LAYERS for part in ("weight", "bias")}
    if tensors.keys() == wanted:
        return Head([_layer(tensors, f"layers.{i}.") for i in V2_LAYERS])
    raise Refused(
        f"{path} is none of LAION's aesthetic predictors: V1 holds weight and bias, V2 the layers"
        f" {', '.join(map(str, V2_LAYERS))}, and this one {', '.join(sorted(tensors)[:6])} …"
    )


def _layer(tensors: dict[str, torch.Tensor], prefix: str) -> Layer:
    weight: Any = tensors[f"{prefix}weight"].detach().float().numpy()
    bias: Any = tensors[f"{prefix}bias"].detach().float().numpy()
    return Layer(np.ascontiguousarray(weight), np.ascontiguousarray(bias))

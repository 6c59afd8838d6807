"""What a head is made of, and whether it fits together."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmill.workers.errors import Refused

Float32 = npt.NDArray[np.float32]

MAX_WIDTH = 16_384
MAX_LAYERS = 32
MAX_LABELS = 1_000
MAX_LABEL_LENGTH = 200  # characters
ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class Layer:
    """y = activation(weight x + bias); weight: float32[out, in], bias: float32[out]."""

    weight: Float32
    bias: Float32
    activation: str = "none"


@dataclass(frozen=True)
class Lookup:
    """Instead of the embedding's number in this column, a table's, before the first layer.

    The number is rounded to float16 first, as embeddings are stored, and looked up exactly.
    keys: float16[m], ascending. values: float32[m]. default: for other values.
    """

    column: int
    keys: npt.NDArray[np.float16]
    values: Float32
    default: float = 0.0


def check_layers(layers: tuple[Layer, ...], outputs: int) -> None:
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise Refused(f"a head has 1 to {MAX_LAYERS} layers, and this one {len(layers)}")
    for i, layer in enumerate(layers):
        shape = layer.weight.shape
        if (layer.weight.dtype.name, layer.bias.dtype.name) != ("float32", "float32"):
            raise Refused(f"layer {i} of the head is not of float32")
        if len(shape) != 2 or layer.bias.shape != shape[:1] or not _widths(shape):
            raise Refused(
                f"layer {i} of the head has a weight of {shape} and a bias of {layer.bias.shape}"
            )
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
            raise Refused(f"layer {i} of the head has weights that are not finite")
        if layer.activation not in ACTIVATIONS:
            raise Refused(f"layer {i} of the head has the unknown activation {layer.activation!r}")
    for i, (a, b) in enumerate(itertools.pairwise(layers)):
        if a.weight.shape[0] != b.weight.shape[1]:
            raise Refused(
                f"layer {i} of the head gives {a.weight.shape[0]} numbers, and layer {i + 1}"
                f" takes {b.weight.shape[1]}"
            )
    if layers[-1].weight.shape[0] != outputs:
        raise Refused(f"the head gives {layers[-1].weight.shape[0]} numbers instead of {outputs}")


def _widths(shape: tuple[int, ...]) -> bool:
    return all(1 <= width <= MAX_WIDTH for width in shape)


def check_lookups(lookups: tuple[Lookup, ...], dims: int) -> None:
    columns = [table.column for table in lookups]
    if not all(type(c) is int and 0 <= c < dims for c in columns) or len(set(columns)) < len(
        columns
    ):
        raise Refused(f"the head's tables are for columns {columns} of {dims}")
    for table in lookups:
        if (table.keys.dtype.name, table.values.dtype.name) != ("float16", "float32"):
            raise Refused(f"the head's table for column {table.column} is of other types")
        if table.keys.ndim != 1 or not len(table.keys) or table.values.shape != table.keys.shape:
            raise Refused(f"the head's table for column {table.column} has another shape")
        # ascending, which NaN is not
        if not (table.keys[:-1] < table.keys[1:]).all() or not np.isfinite(table.keys).all():
            raise Refused(f"the keys of the head's table for column {table.column} do not ascend")
        if not (np.isfinite(table.values).all() and _number(table.default)):
            raise Refused(f"the head's table for column {table.column} is not finite")


def check_labels(labels: tuple[str, ...], positive: tuple[str, ...], scale: float) -> None:
    if labels and not 2 <= len(labels) <= MAX_LABELS:
        raise Refused(f"a zero-shot tagger has 2 to {MAX_LABELS} categories, not {len(labels)}")
    bad = [name for name in labels if not name.strip() or len(name) > MAX_LABEL_LENGTH]
    # neither PostgreSQL's text nor anything that prints it takes these
    bad += [name for name in labels if "\0" in name or not _encodable(name)]
    if bad:
        raise Refused(f"{bad[0][:40]!r} cannot be the name of a category")
    for names in (labels, positive):
        if len(set(names)) < len(names):
            raise Refused("a category is named twice")
    if not set(positive) <= set(labels):
        raise Refused(f"{sorted(set(positive) - set(labels))[0]!r} is no category of the tagger")
    if positive and len(positive) == len(labels):
        raise Refused("all categories are positive: the value would always be 1")
    if not _number(scale) or scale <= 0:
        raise Refused(f"the head's scale must be a positive number, and is {scale!r}")


def _number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

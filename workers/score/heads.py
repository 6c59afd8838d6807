"""Heads: small taggers that read a CLIP model's image embeddings and nothing else.

A head is fully connected layers and, where a published model has them, lookup tables in front. It
ends in one number (an aesthetic rating, a probability), or in a softmax over named categories (a
zero-shot tagger). Its file is one safetensors file, so reading it runs no code.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pairmill.workers.errors import Refused
from pairmill.workers.score.layers import (
    ACTIVATIONS,
    Float32,
    Layer,
    Lookup,
    check_labels,
    check_layers,
    check_lookups,
)

MAX_BYTES = 16 * 2**20  # of a file: a head travels through the database as one value
ROWS = 4_096  # tagged at a time, which bounds the memory
NO_LABEL = -1


@dataclass(frozen=True)
class Tags:
    """What a tagger says of n embeddings (or images); row i is embedding i.

    values: float32[n], NaN where it is not finite. labels: int16[n], an index into the tagger's
    labels and -1 where the value is NaN; None for a tagger without labels.
    """

    values: Float32
    labels: npt.NDArray[np.int16] | None = None


class _OnDevice(NamedTuple):
    layers: list[tuple[torch.Tensor, torch.Tensor, str]]
    lookups: list[tuple[int, torch.Tensor, torch.Tensor, float]]


class Head:
    """kind: ``head`` or ``zero-shot``. dims: length of an embedding. labels: the categories of a
    zero-shot tagger. positive: those whose probabilities are summed into its value; without any,
    the value is the winner's probability. scale: by which the last layer's output is multiplied
    before the softmax (CLIP's exponentiated logit scale). digest: sha256 of ``to_bytes()``, hex.

    Raises Refused, with a sentence, for layers that do not fit, and numbers that are not finite.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        lookups: Sequence[Lookup] = (),
        labels: Sequence[str] = (),
        positive: Sequence[str] = (),
        scale: float = 1.0,
    ) -> None:
        self.layers, self.lookups = tuple(layers), tuple(lookups)
        self.labels, self.positive = tuple(labels), tuple(positive)
        self.scale = scale
        self.kind = "zero-shot" if self.labels else "head"
        check_layers(self.layers, len(self.labels) or 1)
        self.dims = int(self.layers[0].weight.shape[1])
        check_lookups(self.lookups, self.dims)
        check_labels(self.labels, self.positive, scale)
        self._bytes = self._serialised()
        if len(self._bytes) > MAX_BYTES:
            raise Refused(f"the head has {len(self._bytes)} bytes, and may have {MAX_BYTES}")
        self.digest = hashlib.sha256(self._bytes).hexdigest()
        self._on: dict[torch.device, _OnDevice] = {}

    @torch.inference_mode()
    def tag(self, embeddings: torch.Tensor) -> Tags:
        """Tag embeddings: floating point [n, dims], L2-normalised, on any device.

        Computed in float64, so that the value hardly depends on device and batch. An embedding or a
        result that is not finite is NaN in its own row. Raises ValueError for another shape.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dims:
            raise ValueError(f"a head on [n, {self.dims}] cannot tag {list(embeddings.shape)}")
        parts = [self._tag(rows) for rows in torch.split(embeddings, ROWS)]
        values = np.concatenate([part.values for part in parts])
        labels = [part.labels for part in parts if part.labels is not None]
        return Tags(values, np.concatenate(labels) if labels else None)

    def _tag(self, embeddings: torch.Tensor) -> Tags:
        on = self._placed(embeddings.device)
        x = embeddings.to(torch.float64, copy=True)
        good = x.isfinite().all(dim=1)
        for column, keys, values, default in on.lookups:
            x[:, column] = _looked_up(x[:, column], keys, values, default)
        for weight, bias, activation in on.layers:
            x = ACTIVATIONS[activation](torch.addmm(bias, x, weight.T))
        if not self.labels:
            return Tags(_finite(x[:, 0], good))
        probabilities = (self.scale * x).softmax(dim=1)
        best, winner = probabilities.max(dim=1)
        if self.positive:
            best = probabilities[:, [self.labels.index(name) for name in self.positive]].sum(dim=1)
        out = _finite(best, good)
        labels = winner.to("cpu", torch.int16).numpy()
        return Tags(out, np.where(np.isnan(out), np.int16(NO_LABEL), labels))

    def _placed(self, device: torch.device) -> _OnDevice:
        if device not in self._on:

            def place(array: npt.NDArray[Any]) -> torch.Tensor:
                return torch.from_numpy(array.astype(np.float64)).to(device)

            self._on[device] = _OnDevice(
                [
                    (place(layer.weight), place(layer.bias), layer.activation)
                    for layer in self.layers
                ],
                [(t.column, place(t.keys), place(t.values), t.default) for t in self.lookups],
            )
        return self._on[device]

    def to_bytes(self) -> bytes:
        """The head's file: safetensors, at most 16 MB, the same bytes for the same head."""
        return self._bytes

    def _serialised(self) -> bytes:
        tensors: dict[str, npt.NDArray[Any]] = {}
        for i, layer in enumerate(self.layers):
            tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"] = layer.weight, layer.bias
        for i, table in enumerate(self.lookups):
            tensors[f"lookups.{i}.keys"], tensors[f"lookups.{i}.values"] = table.keys, table.values
        says = {
            "version": 1,
            "activations": [layer.activation for layer in self.layers],
            "lookups": [{"column": t.column, "default": t.default} for t in self.lookups],
            "labels": self.labels,
            "positive": self.positive,
            "scale": self.scale,
        }
        # one key: the library writes several in an order of its own each time
        return save_tensors(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            metadata={"pairmill.head": json.dumps(says, sort_keys=True)},
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """The head of a file that ``to_bytes`` made; Refused, with a sentence, for others."""
        if len(data) > MAX_BYTES:
            raise Refused(f"the head's file has {len(data)} bytes, and may have {MAX_BYTES}")
        try:
            tensors = load_tensors(data)
            says = json.loads(_metadata(data)["pairmill.head"])
            head = cls._said(says, tensors)
        except Refused:
            raise
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = " ".join(str(error).split())[:200]
            raise Refused(f"this is no head's file: {type(error).__name__}: {said}") from None
        # kept as they came: the digest is of the file, whatever version of the library wrote it
        head._bytes = bytes(data)
        head.digest = hashlib.sha256(data).hexdigest()
        return head

    @classmethod
    def _said(cls, says: Any, tensors: dict[str, npt.NDArray[Any]]) -> "Head":
        keys = {"version", "activations", "lookups", "labels", "positive", "scale"}
        if not isinstance(says, dict) or says.keys() != keys or says["version"] != 1:
            raise Refused("the head's file is of another version than this Pairmill's: upgrade it")
        layers = [
            Layer(tensors.pop(f"layers.{i}.weight"), tensors.pop(f"layers.{i}.bias"), activation)
            for i, activation in enumerate(_list(says["activations"], str))
        ]
        lookups = [
            Lookup(
                table["column"],
                tensors.pop(f"lookups.{i}.keys"),
                tensors.pop(f"lookups.{i}.values"),
                table["default"],
            )
            for i, table in enumerate(_list(says["lookups"], dict))
        ]
        if tensors:
            raise Refused(f"the head's file has tensors that no layer uses: {sorted(tensors)[:3]}")
        labels, positive = _list(says["labels"], str), _list(says["positive"], str)
        return cls(layers, lookups=lookups, labels=labels, positive=positive, scale=says["scale"])


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return found


def _list(value: Any, kind: type) -> list[Any]:
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise Refused("the head's file describes its layers in another way than Pairmill's do")
    return value


def _looked_up(
    x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, default: float
) -> torch.Tensor:
    stored = x.half().double()
    where = torch.searchsorted(keys, stored).clamp(max=len(keys) - 1)
    return torch.where(keys[where] == stored, values[where], default)


def _finite(values: torch.Tensor, good: torch.Tensor) -> Float32:
    numbers = torch.where(good, values, torch.nan).to("cpu", torch.float32).numpy()
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))

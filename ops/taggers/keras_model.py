"""A head out of a Keras 2 model that TensorFlow saved, without TensorFlow.

Made for LAION's CLIP-based NSFW detector (https://github.com/LAION-AI/CLIP-based-NSFW-Detector,
MIT), which AutoKeras trained. AutoKeras took the columns of the embedding in which float16 leaves
few distinct numbers for categories: their numbers, printed with six decimals, are looked up in the
vocabulary of the training data, and the place in it (by falling frequency; 0: unknown) is what the
network sees. Ports that leave this out compute something else.
"""

import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.ops.taggers.protobuf import Message, integer, many, message, octets, varints
from pairmill.ops.taggers.tensorflow_files import checkpoint, constant
from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Layer, Lookup

MAX_FILE = 64 * 2**20
EPSILON = 1e-7  # of Keras's Normalization
FILES = (
    "keras_metadata.pb",
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
)
Float64 = npt.NDArray[np.float64]


def load(path: Path) -> Head:
    """The head of a zip file with one saved model in it.

    Raises Refused, with a sentence, for a file that is broken, and for a model with a layer other
    than those of the detector: categorical encoding, normalisation, dense, ReLU, sigmoid, dropout.
    """
    return from_files(*_files(path))


def from_files(metadata: bytes, graph: bytes, index: bytes, data: bytes) -> Head:
    """The head of the four files of a saved model, in the order of FILES; raises as ``load``."""
    layers = _layers(metadata)
    weights = checkpoint(index, data)
    vocabularies = _Graph(graph).vocabularies()
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # the head refuses what is not finite
            return _head(layers, weights, vocabularies)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise Refused(f"the saved model lacks {said}") from None


def _files(path: Path) -> list[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            found = [[m for m in members if f"/{m.filename}".endswith(f"/{f}")] for f in FILES]
            if any(len(each) != 1 for each in found):
                raise Refused(f"{path} is not one model that TensorFlow saved: {', '.join(FILES)}")
            if any(each[0].file_size > MAX_FILE for each in found):
                raise Refused(f"the saved model {path} is larger than a head can be")
            return [archive.read(each[0]) for each in found]
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise Refused(f"cannot read the zip file {path}: {error}") from None


def _layers(metadata: bytes) -> list[dict[str, Any]]:
    """The configurations of the model's layers, of which each must follow the one before."""
    for node in many(message(metadata), 1):
        if octets(message(node), 3) == b"root":
            break
    else:
        raise Refused("the saved model does not describe its layers")
    try:
        layers: list[dict[str, Any]] = json.loads(octets(message(node), 5))["config"]["layers"]
        for before, layer in itertools.pairwise(layers):
            if layer["inbound_nodes"] != [[[before["name"], 0, 0, {}]]]:
                raise Refused(f"the saved model's layer {layer['name']} is not one of a chain")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("the saved model does not describe its layers as Keras 2 does") from None
    return layers


def _head(
    configurations: list[dict[str, Any]],
    weights: dict[str, npt.NDArray[Any]],
    vocabularies: dict[int, tuple[list[bytes], npt.NDArray[Any]]],
) -> Head:
    layers: list[Layer] = []
    lookups: list[Lookup] = []
    dims, width, n = 0, 0, 0  # n: of the layers with weights
    scale = shift = np.zeros(0)  # what is still to be folded into the next layer's weights
    for layer in configurations:
        kind, config = layer["class_name"].removeprefix("Custom>"), layer["config"]
        of = f"layer_with_weights-{n}"
        if kind == "InputLayer":
            dims = width = int(config["batch_input_shape"]["items"][1])
            scale, shift = np.ones(dims), np.zeros(dims)
        elif kind == "MultiCategoryEncoding" and not layers:
            lookups = _lookups(config["encoding"], vocabularies)
            n += 1
        elif kind == "Normalization" and not layers and config["axis"]["items"] == [-1]:
            deviation = np.sqrt(weights[f"{of}/variance"].astype(np.float64))
            scale = scale / np.maximum(deviation, EPSILON)
            shift = (shift - weights[f"{of}/mean"]) * scale
            n += 1
        elif kind == "Dense" and config["use_bias"]:
            kernel = weights[f"{of}/kernel"].astype(np.float64)
            bias = weights[f"{of}/bias"] + shift @ kernel
            weight = (scale[:, None] * kernel).T.astype(np.float32)
            layers.append(Layer(weight, bias.astype(np.float32), _activation(config)))
            width = kernel.shape[1]
            scale, shift = np.ones(width), np.zeros(width)
            n += 1
        elif kind in ("Activation", "ReLU") and layers and layers[-1].activation == "none":
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, _activation(config, kind))
        elif kind != "Dropout":
            raise Refused(f"the saved model has a layer {kind} where no head has one")
    return Head(layers, lookups=lookups)


def _activation(config: dict[str, Any], kind: str = "") -> str:
    if kind == "ReLU":
        if config["max_value"] is None and not (config["negative_slope"] or config["threshold"]):
            return "relu"
        raise Refused("the saved model has a ReLU that is not the plain one")
    name = {"linear": "none", "relu": "relu", "sigmoid": "sigmoid"}.get(config["activation"])
    if name is None:
        raise Refused(f"the saved model has the unknown activation {config['activation']!r}")
    return name


def _lookups(
    encoding: list[str], vocabularies: dict[int, tuple[list[bytes], npt.NDArray[Any]]]
) -> list[Lookup]:
    columns = [i for i, kind in enumerate(encoding) if kind != "none"]
    if columns != sorted(vocabularies) or any(encoding[i] != "int" for i in columns):
        raise Refused("the saved model encodes other columns than it has vocabularies for")
    return [_lookup(column, *vocabularies[column]) for column in columns]


def _lookup(column: int, words: list[bytes], places: npt.NDArray[Any]) -> Lookup:
    """By the float16 that an embedding has, instead of its six decimals."""
    place = dict(zip(words, places.tolist(), strict=True))
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = np.unique(every[np.abs(every) <= 1] + np.float16(0))  # which makes 0 of -0
    known = [(number, place[w]) for number in numbers.tolist() if (w := b"%f" % number) in place]
    keys, values = zip(*known, strict=True) if known else ((), ())
    return Lookup(column, np.array(keys, np.float16), np.array(values, np.float32))


class _Graph:
    """The object graph of a saved model: which constants a vocabulary is made of.

    tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph}.proto
    """

    def __init__(self, saved_model: bytes) -> None:
        graph = message(octets(message(saved_model), 2))
        objects = message(octets(graph, 7))
        self._nodes = [message(node) for node in many(objects, 1)]
        functions = [message(entry) for entry in many(objects, 2)]
        self._functions = {octets(entry, 1): message(octets(entry, 2)) for entry in functions}
        operations = [message(node) for node in many(message(octets(graph, 2)), 1)]
        self._constants = {octets(op, 1): op for op in operations if octets(op, 2) == b"Const"}

    def vocabularies(self) -> dict[int, tuple[list[bytes], npt.NDArray[Any]]]:
        """For each categorical column its words, and their places."""
        encoder = self._children(0).get("layer_with_weights-0", -1)
        encoders = self._children(self._children(encoder).get("encoding_layers", -1))
        found = {}
        for column, node in encoders.items():
            table = self._children(node).get("lookup_table", -1)
            words, places = self._initialiser(table)
            if not column.isdecimal() or not isinstance(words, list) or isinstance(places, list):
                raise Refused("the saved model's vocabularies are of an unknown kind")
            found[int(column)] = (words, places)
        return found

    def _children(self, node: int) -> dict[str, int]:
        if not 0 <= node < len(self._nodes):
            return {}
        children = [message(child) for child in many(self._nodes[node], 1)]
        return {octets(c, 2).decode(errors="replace"): integer(c, 1) for c in children}

    def _initialiser(self, table: int) -> list[npt.NDArray[Any] | list[bytes]]:
        """What the function that fills the table takes: the table, then its keys and values."""
        node = self._children(table).get("_initialize", -1)
        if not 0 <= node < len(self._nodes):
            raise Refused("the saved model has a vocabulary that nothing fills")
        function = self._functions.get(octets(message(octets(self._nodes[node], 6)), 1), {})
        bound = varints(octets(function, 2))
        if len(bound) != 3 or bound[0] != table or max(bound) >= len(self._nodes):
            raise Refused("the saved model fills a vocabulary in an unknown way")
        return [constant(self._tensor(self._nodes[node])) for node in bound[1:]]

    def _tensor(self, node: Message) -> Message:
        name = octets(message(octets(node, 9)), 1)
        for entry in many(self._constants.get(name, {}), 5):
            attribute = message(entry)
            if octets(attribute, 1) == b"value":
                return message(octets(message(octets(attribute, 2)), 8))
        raise Refused(f"the saved model has no constant {name.decode(errors='replace')}")

"""Heads: what they compute, their file, and what is refused."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from pairmill.workers.errors import Refused
from pairmill.workers.score import heads
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Layer, Lookup


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def embeddings(n: int, dims: int) -> torch.Tensor:
    x = numbers(n, dims, seed=1)
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


def mlp(dims: int = 8, activation: str = "relu") -> Head:
    return Head(
        [
            Layer(numbers(5, dims), numbers(5, seed=2), activation),
            Layer(numbers(1, 5, seed=3), numbers(1, seed=4), "sigmoid"),
        ]
    )


def zero_shot(positive: tuple[str, ...] = ()) -> Head:
    layer = Layer(numbers(3, 8), np.zeros(3, np.float32))
    return Head([layer], labels=["a", "b", "c"], positive=positive, scale=20.0)


def test_layers_are_torchs() -> None:
    head, x = mlp(), embeddings(50, 8)
    with torch.no_grad():
        for layer in head.layers:
            x = torch.nn.functional.linear(
                x, torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
            )
            x = {"relu": torch.relu, "sigmoid": torch.sigmoid}[layer.activation](x)
    tags = head.tag(embeddings(50, 8))
    assert head.kind == "head"
    assert tags.labels is None
    assert tags.values.dtype == np.float32
    assert tags.values == pytest.approx(x[:, 0].numpy(), abs=1e-6)


def test_value_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = mlp(), embeddings(50, 8)
    whole = head.tag(x).values
    monkeypatch.setattr(heads, "ROWS", 7)
    assert head.tag(x).values == pytest.approx(whole, abs=1e-7)
    assert [head.tag(row[None]).values[0] for row in x] == pytest.approx(whole, abs=1e-7)
    assert head.tag(x[:0]).values.shape == (0,)


def test_zero_shot_gives_the_winner_and_its_probability() -> None:
    head, x = zero_shot(), embeddings(50, 8)
    probabilities = (20 * x @ torch.from_numpy(head.layers[0].weight).T).softmax(dim=1).numpy()
    tags = head.tag(x)
    assert head.kind == "zero-shot"
    assert tags.labels is not None
    assert tags.labels.dtype == np.int16
    assert tags.labels.tolist() == probabilities.argmax(axis=1).tolist()
    assert set(tags.labels.tolist()) == {0, 1, 2}
    assert tags.values == pytest.approx(probabilities.max(axis=1), abs=1e-5)
    summed = zero_shot(("a", "c")).tag(x)
    assert summed.values == pytest.approx(probabilities[:, [0, 2]].sum(axis=1), abs=1e-5)
    assert summed.labels is not None
    assert summed.labels.tolist() == tags.labels.tolist()


def test_lookup_replaces_the_number_that_is_stored() -> None:
    keys = np.array([-0.5, 0.1, 0.25], np.float16)
    table = Lookup(1, keys, np.array([7, 8, 9], np.float32), default=-1.0)
    weight = np.array([[0, 1, 0]], np.float32)
    head = Head([Layer(weight, np.zeros(1, np.float32))], lookups=[table])
    # 0.1 is no float16, and neither are its neighbours
    given = [-0.5, 0.1, 0.09999, 0.25, 0.2502, 0.3, 2, -2]
    x = torch.zeros(len(given), 3)
    x[:, 1] = torch.tensor(given)
    for kind in (torch.float32, torch.float64):
        rows = x.to(kind)
        assert head.tag(rows).values.tolist() == [7, 8, 8, 9, -1, -1, -1, -1]
        assert rows.equal(x.to(kind))  # what was given is not changed
    assert head.tag(x.half()).values.tolist() == head.tag(x).values.tolist()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_embedding_that_is_not_finite_is_nan_in_its_own_row(number: float) -> None:
    for head in (mlp(), zero_shot()):
        x = embeddings(5, 8)
        whole = head.tag(x)
        x[2, 3] = number
        tags = head.tag(x)
        assert np.isnan(tags.values).tolist() == [False, False, True, False, False]
        assert np.delete(tags.values, 2).tolist() == np.delete(whole.values, 2).tolist()
        if tags.labels is not None:
            assert tags.labels[2] == heads.NO_LABEL
            assert (np.delete(tags.labels, 2) >= 0).all()


def test_result_that_float32_cannot_hold_is_nan() -> None:
    head = Head([Layer(np.full((1, 2), 3e38, np.float32), np.zeros(1, np.float32))])
    values = head.tag(torch.tensor([[1.0, 1.0], [0.5, 0.0]])).values
    assert np.isnan(values).tolist() == [True, False]


def test_embeddings_of_other_dims_are_an_error() -> None:
    for x in (embeddings(3, 9), embeddings(3, 8)[0]):
        with pytest.raises(ValueError, match="cannot tag"):
            mlp().tag(x)


widths = st.lists(st.integers(1, 6), min_size=1, max_size=4)
finite = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def any_head(draw: st.DrawFn) -> Head:
    labels = draw(
        st.lists(
            st.text("äβ字 'x\"\\\n", min_size=1, max_size=5).filter(str.strip),
            unique=True,
            max_size=4,
        )
    )
    labels = labels if len(labels) > 1 else []
    sizes = [*draw(widths), len(labels) or 1]
    layers = [
        Layer(
            np.array(draw(st.lists(finite, min_size=a * b, max_size=a * b)), np.float32).reshape(
                b, a
            ),
            np.array(draw(st.lists(finite, min_size=b, max_size=b)), np.float32),
            draw(st.sampled_from(["none", "relu", "sigmoid"])),
        )
        for a, b in itertools.pairwise(sizes)
    ]
    keys = draw(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=5, unique=True))
    table = Lookup(
        draw(st.integers(0, sizes[0] - 1)),
        np.sort(np.array(keys, np.float16)),
        np.array(draw(st.lists(finite, min_size=len(keys), max_size=len(keys))), np.float32),
        draw(finite),
    )
    return Head(
        layers,
        lookups=draw(st.sampled_from([[], [table]])),
        labels=labels,
        positive=labels[: draw(st.integers(0, max(0, len(labels) - 1)))],
        scale=draw(st.floats(1e-3, 1e3)),
    )


@given(any_head())
def test_file_gives_the_same_head(head: Head) -> None:
    again = Head.from_bytes(head.to_bytes())
    assert again.to_bytes() == head.to_bytes()
    assert again.digest == head.digest
    assert (again.kind, again.dims, again.labels) == (head.kind, head.dims, head.labels)
    assert (again.positive, again.scale) == (head.positive, head.scale)
    x = embeddings(4, head.dims)
    assert np.array_equal(again.tag(x).values, head.tag(x).values, equal_nan=True)


def test_file_is_the_same_each_time_and_its_digest_known() -> None:
    assert {zero_shot().to_bytes() for _ in range(20)} == {zero_shot().to_bytes()}
    assert len({head.digest for head in (mlp(), mlp(9), zero_shot(), zero_shot(("a",)))}) == 4


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        Head.from_bytes(data)


@settings(max_examples=300)
@given(st.data())
def test_file_with_a_byte_changed_is_refused_or_another_head(data: st.DataObject) -> None:
    good = zero_shot(("b",)).to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    cut = data.draw(st.sampled_from([bad, bad[:at]]))
    try:
        head = Head.from_bytes(cut)
    except Refused as error:
        assert len(str(error)) < 500
    else:
        assert head.to_bytes() == cut
        head.tag(embeddings(2, head.dims))


def said(**changes: object) -> bytes:
    """The file of a zero-shot head that says something else about itself."""
    good = zero_shot().to_bytes()
    says = json.loads(heads._metadata(good)["pairmill.head"]) | changes
    return save(load(good), metadata={"pairmill.head": json.dumps(says)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 2}, "of another version"),
        ({"more": 1}, "of another version"),
        ({"activations": []}, "no layer uses"),
        ({"activations": ["none", "none"]}, "layers.1.weight"),
        ({"activations": ["tanh"]}, "unknown activation 'tanh'"),
        ({"activations": "none"}, "describes its layers in another way"),
        ({"activations": [None]}, "describes its layers in another way"),
        ({"labels": ["a", "b"]}, "gives 3 numbers instead of 2"),
        ({"labels": ["a", "b", "a"]}, "named twice"),
        ({"labels": ["a", "b", " "]}, "cannot be the name"),
        ({"labels": ["a", "b", "c\0"]}, "cannot be the name"),
        ({"labels": ["a", "b", "\ud800"]}, "cannot be the name"),
        ({"labels": [1, 2, 3]}, "describes its layers in another way"),
        ({"positive": ["d"]}, "'d' is no category"),
        ({"positive": ["a", "b", "c"]}, "always be 1"),
        ({"scale": 0.0}, "a positive number"),
        ({"scale": float("nan")}, "a positive number"),
        ({"scale": True}, "a positive number"),
        ({"scale": "1"}, "a positive number"),
        ({"scale": 10**400}, "a positive number"),
        ({"lookups": [{"column": 1, "default": 0.0}]}, "lookups.0.keys"),
    ],
)
def test_file_that_does_not_hold_together_is_refused(
    changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        Head.from_bytes(said(**changes))


def test_file_of_others_is_refused() -> None:
    with pytest.raises(Refused, match="this is no head's file"):
        Head.from_bytes(save({"weight": numbers(1, 8)}))
    good = zero_shot().to_bytes()
    more = load(good) | {"more": numbers(1)}
    with pytest.raises(Refused, match="no layer uses"):
        Head.from_bytes(save(more, metadata=heads._metadata(good)))
    deep = {"pairmill.head": "[" * 100_000}
    with pytest.raises(Refused, match="this is no head's file"):
        Head.from_bytes(save(load(good), metadata=deep))
    with pytest.raises(Refused, match="may have 16777216"):
        Head.from_bytes(bytes(heads.MAX_BYTES + 1))


ONE = Layer(numbers(1, 8), numbers(1))


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([], "1 to 32 layers"),
        ([ONE] * 33, "1 to 32 layers"),
        ([ONE, ONE], "layer 0 of the head gives 1 numbers, and layer 1 takes 8"),
        ([Layer(numbers(2, 8), numbers(2))], "gives 2 numbers instead of 1"),
        ([Layer(numbers(1, 8), numbers(2))], "a bias of"),
        ([Layer(numbers(8), numbers(1))], "a weight of"),
        ([Layer(numbers(1, 0), numbers(1))], "a weight of"),
        ([Layer(numbers(1, 20_000), numbers(1))], "a weight of"),
        ([Layer(numbers(1, 8).astype(np.float64), numbers(1))], "not of float32"),  # type: ignore[arg-type]
        ([Layer(np.full((1, 8), np.inf, np.float32), numbers(1))], "not finite"),
        ([Layer(numbers(1, 8), np.full(1, np.nan, np.float32))], "not finite"),
        (
            [Layer(numbers(2_100, 2_100), numbers(2_100)), Layer(numbers(1, 2_100), numbers(1))],
            "may have 16777216",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list[Layer], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        Head(layers)


KEYS, VALUES = np.array([0, 1], np.float16), numbers(2)


@pytest.mark.parametrize(
    "table",
    [
        Lookup(8, KEYS, VALUES),
        Lookup(-1, KEYS, VALUES),
        Lookup(True, KEYS, VALUES),
        Lookup(0, KEYS[::-1], VALUES),
        Lookup(0, np.array([0, np.nan], np.float16), VALUES),
        Lookup(0, np.array([0, np.inf], np.float16), VALUES),
        Lookup(0, KEYS[:0], VALUES[:0]),
        Lookup(0, KEYS, VALUES[:1]),
        Lookup(0, KEYS.astype(np.float32), VALUES),  # type: ignore[arg-type]
        Lookup(0, KEYS, VALUES, float("nan")),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: Lookup) -> None:
    with pytest.raises(Refused, match="the head's table"):
        Head([ONE], lookups=[table])
    with pytest.raises(Refused, match="the head's tables"):
        Head([ONE], lookups=[Lookup(0, KEYS, VALUES)] * 2)


@pytest.mark.parametrize(
    "kind", ["BF16", "F16", "F64", "I32", "U8", "F8_E4M3", "C64", "BOOL", "X", "F32"]
)
def test_file_of_other_numbers_is_refused(kind: str) -> None:
    good = zero_shot().to_bytes()
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    size = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I32": 4, "C64": 8}.get(kind, 1)
    end = 12 + 24 * size
    header["layers.0.bias"] = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    header["layers.0.weight"] = {"dtype": kind, "shape": [3, 8], "data_offsets": [12, end]}
    said = json.dumps(header).encode()
    data = len(said).to_bytes(8, "little") + said + bytes(end)
    if kind == "F32":  # the file is otherwise sound
        assert Head.from_bytes(data).labels == ("a", "b", "c")
        return
    with pytest.raises(Refused):
        Head.from_bytes(data)

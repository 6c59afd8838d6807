"""LAION's published heads, read from their own files, give what they gave."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmill.ops.taggers import keras_model
from pairmill.ops.taggers.head_files import load
from pairmill.ops.taggers.tensorflow_files import checkpoint
from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head
from pairmill.workers.score.layers import Layer
from support.nsfw_reference import COLUMNS, vectors
from support.shared_data import shared_file

REFERENCE = json.loads((Path(__file__).parents[2] / "support" / "nsfw_reference.json").read_text())
NSFW = {512: "models/nsfw-vit-b-32.zip", 768: "models/nsfw-vit-l-14.zip"}


def unit(n: int, dims: int) -> torch.Tensor:
    x = torch.randn(n, dims, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(x, dim=1)


def plain(tensors: dict[str, torch.Tensor], names: list[str], x: torch.Tensor) -> np.ndarray:
    """The published predictors' own loop: linear layers, one after the other."""
    for name in names:
        x = torch.nn.functional.linear(x, tensors[f"{name}weight"], tensors[f"{name}bias"])
    return x[:, 0].numpy()


@pytest.mark.parametrize(
    ("file", "dims", "names"),
    [
        ("models/aesthetic-v1-vit-b-32.pth", 512, [""]),
        ("models/aesthetic-v1-vit-l-14.pth", 768, [""]),
        ("models/aesthetic-v2-vit-l-14.pth", 768, [f"layers.{i}." for i in (0, 2, 4, 6, 7)]),
    ],
)
def test_aesthetic_predictors_give_what_a_plain_loop_gives(
    file: str, dims: int, names: list[str]
) -> None:
    path = shared_file(file)
    head, x = load(path), unit(200, dims)
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    assert (head.kind, head.dims, len(head.layers)) == ("head", dims, len(names))
    values = head.tag(x).values
    assert values == pytest.approx(plain(tensors, names, x), abs=1e-4)
    assert np.isfinite(values).all()
    # the stored float16 says nearly the same: ratings are 1 to 10
    assert head.tag(x.half()).values == pytest.approx(values, abs=2e-3)
    # towards the gradient the rating rises; neither version has a bend
    direction = np.linalg.multi_dot([*(layer.weight for layer in head.layers[::-1]), np.eye(dims)])
    up = torch.from_numpy(direction.astype(np.float32))
    steps = head.tag(x[:1] + torch.linspace(0, 1, 20)[:, None] * up / up.norm()).values
    assert (np.diff(steps) > 0).all()
    assert Head.from_bytes(head.to_bytes()).digest == head.digest


@pytest.mark.parametrize("dims", NSFW)
def test_nsfw_detectors_give_what_tensorflow_gives(dims: int) -> None:
    head = load(shared_file(NSFW[dims]))
    given = vectors(dims)
    tags = head.tag(torch.from_numpy(given))
    wanted = np.array(REFERENCE[str(dims)])
    assert head.dims == dims
    assert [layer.activation for layer in head.layers] == ["relu"] * (dims // 256) + ["sigmoid"]
    assert np.abs(tags.values - wanted).max() < 1e-5
    assert (wanted.min() < 1e-4) and (wanted.max() > 0.9)  # the reference spans what it can say
    # of a float32 the stored number is looked up
    near = given.astype(np.float32) * np.float32(1 + 1e-5)
    assert head.tag(torch.from_numpy(near)).values == pytest.approx(tags.values, abs=1e-3)
    assert Head.from_bytes(head.to_bytes()).digest == head.digest


@pytest.mark.parametrize("dims", NSFW)
def test_nsfw_detectors_need_their_tables(dims: int) -> None:
    """The columns that they take for categories, as a port without them would not."""
    head, given = load(shared_file(NSFW[dims])), vectors(dims)
    assert {table.column for table in head.lookups} == COLUMNS[dims].keys()
    for table in head.lookups:
        hits = np.isin(given[:, table.column], table.keys)
        assert 80 <= hits.sum() < 190
        assert table.keys[table.values == 1].astype(float) == pytest.approx(
            [COLUMNS[dims][table.column]], abs=1e-3
        )
    without = Head(head.layers).tag(torch.from_numpy(given)).values
    assert np.abs(without - REFERENCE[str(dims)]).max() > 0.01


def changed(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a zip file with other members; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def replaced(file: str, old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    assert len(old) == len(new)  # the lengths of the messages around it stay true
    return lambda name, data: data.replace(old, new) if name.endswith(file) else data


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (replaced("metadata.pb", b'"class_name": "ReLU"', b'"class_name": "ELU!"'), "layer ELU!"),
        (replaced("metadata.pb", b'"threshold": 0.0', b'"threshold": 0.5'), "not the plain one"),
        (
            replaced("metadata.pb", b'"activation": "sigmoid"', b'"activation": "softmax"'),
            "'softmax'",
        ),
        (replaced("metadata.pb", b'[[["re_lu", 0', b'[[["input", 0'), "not one of a chain"),
        (replaced("metadata.pb", b'"axis": {"class', b'"axes": {"class'), "lacks 'axis'"),
        (replaced("metadata.pb", b"root", b"toor"), "does not describe its layers"),
        (
            replaced("saved_model.pb", b"encoding_layers", b"encoding_Layers"),
            "encodes other columns",
        ),
        (replaced("saved_model.pb", b"_initialize", b"_Initialize"), "nothing fills"),
        (replaced("variables.index", b"kernel", b"Kernel"), "lacks .layer_with_weights-2.kernel"),
        (lambda name, data: data[:-9] if name.endswith("index") else data, "is no table"),
        (lambda name, data: data[:99] if "data-0" in name else data, "in another file"),
        (lambda name, data: None if name.endswith("saved_model.pb") else data, "is not one model"),
        (lambda name, data: b"" if name.endswith("saved_model.pb") else data, "other columns"),
        (
            lambda name, data: data[:50_000] if name.endswith("saved_model.pb") else data,
            "breaks off",
        ),
    ],
)
def test_saved_model_that_is_another_is_refused(
    tmp_path: Path, change: Callable[[str, bytes], bytes], sentence: str
) -> None:
    path = changed(shared_file(NSFW[512]), tmp_path / "model.zip", change)
    with pytest.raises(Refused, match=sentence):
        load(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_broken_saved_model_is_refused_or_a_head(data: st.DataObject) -> None:
    with zipfile.ZipFile(shared_file(NSFW[512])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    files = [next(members[n] for n in members if n.endswith(f)) for f in keras_model.FILES]
    which = data.draw(st.integers(0, 3))
    good = files[which]
    at = data.draw(st.integers(0, len(good) - 1))
    files[which] = (
        good[:at] + data.draw(st.binary(max_size=4)) + good[at + data.draw(st.integers(0, 4)) :]
    )
    try:
        keras_model.from_files(*files)
    except Refused as error:
        assert len(str(error)) < 500


@given(st.binary(max_size=300))
def test_hostile_checkpoint_is_refused(data: bytes) -> None:
    footer = bytes([0, 0, 0, len(data) % 128]).ljust(40, b"\0")
    for index in (data, data + footer + 0xDB4775248B80FB57.to_bytes(8, "little")):
        with pytest.raises(Refused):
            checkpoint(index, data)


def saved(path: Path, what: object) -> Path:
    torch.save(what, path)
    return path


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("evil"),))  # type: ignore[return-value]


LINEAR = {"weight": torch.ones(1, 4), "bias": torch.zeros(1)}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (Evil(), "no checkpoint of plain tensors"),
        ([torch.ones(1)], "is no state dict"),
        ({"weight": 1}, "is no state dict"),
        ({"state_dict": LINEAR}, "is no state dict"),
        ({"weight": torch.ones(1, 4)}, "none of LAION's aesthetic predictors"),
        (
            {f"layers.{i}.{p}": torch.ones(1) for i in (0, 3) for p in ("weight", "bias")},
            "none of LAION's",
        ),
        (LINEAR | {"weight": torch.ones(2, 4)}, "a bias of"),
        (LINEAR | {"bias": torch.tensor([float("nan")])}, "not finite"),
        (
            {
                f"layers.{i}.{p}": torch.ones(1, 4)
                for i in (0, 2, 4, 6, 7)
                for p in ("weight", "bias")
            },
            "a bias of",
        ),
    ],
)
def test_checkpoint_that_is_no_head_is_refused(
    tmp_path: Path, what: object, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=sentence):
        load(saved(tmp_path / "x.pth", what))
    assert not (tmp_path / "evil").exists()


def test_files_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    for name, data, sentence in (
        ("absent.pth", None, "there is no file"),
        ("a.txt", b"x", "is no head"),
        ("a.pth", b"x", "cannot read|no checkpoint"),
        ("a.pt", b"", "cannot read|no checkpoint"),
        ("a.zip", b"x", "cannot read the zip file"),
        ("a.safetensors", b"x", "this is no head's file"),
        ("large.pth", bytes(16 * 2**20 + 1), "may have 16777216"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(Refused, match=sentence):
            load(tmp_path / name)


def test_own_file_and_half_precision(tmp_path: Path) -> None:
    head = Head([Layer(np.ones((1, 4), np.float32), np.zeros(1, np.float32))])
    (tmp_path / "h.safetensors").write_bytes(head.to_bytes())
    assert load(tmp_path / "h.safetensors").digest == head.digest
    half = {name: tensor.half() for name, tensor in LINEAR.items()}
    assert load(saved(tmp_path / "h.pth", half)).digest == head.digest

"""Indexes of each kind and of many shards: answers, removals, interruptions, damage."""

import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.vectors import index as vector_index
from pairmill.ops.vectors.index_info import NOTHING, read_info
from pairmill.ops.vectors.index_plan import parsed_size, plan
from pairmill.ops.vectors.opened import Searcher, nearest, open_index
from pairmill.ops.vectors.recall import unit
from support.exports import exported, sample_ids, vectors

DIMS, ROWS = 32, 3_000
# the last hundred are copies of the first, so that equal vectors are in two shards
IMAGES = np.concatenate([vectors(ROWS - 100, 1, DIMS), vectors(ROWS - 100, 1, DIMS)[:100]])
TEXTS = vectors(ROWS, 2, DIMS)
IDS = np.array(sample_ids(ROWS), np.uint64)
ASKED = TEXTS[:60].astype(np.float32)
KINDS = ["hnsw", "ivfpq", "shards", "merged"]
RECALL = (
    0.9  # a build's 0.95 is of its own 50 queries: of these 60 it is one or two hundredths less
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("export") / "export", IMAGES, TEXTS)


@pytest.fixture(scope="module")
def indexes(export: Path) -> dict[str, Path]:
    """One of each of KINDS: a graph, inverted lists, graphs in four shards, and inverted lists of
    which two parts were built by themselves."""
    made = {name: export.parent / name for name in KINDS}
    vector_index.build(export, made["hnsw"], kind="hnsw", queries=50)
    vector_index.build(export, made["ivfpq"], kind="ivfpq", queries=50)
    vector_index.build(export, made["shards"], kind="hnsw", memory=ROWS * 364 // 4, queries=0)
    parts = [export.parent / f"part-{n}" for n in (1, 2)]
    for n, part in enumerate(parts, 1):
        vector_index.build(export, part, kind="ivfpq", part=(n, 2), queries=50)
    vector_index.merge(parts, made["merged"])
    return made


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, indexes: dict[str, Path], tmp_path: Path) -> Path:
    """An index that a test may change."""
    shutil.copytree(indexes[request.param], tmp_path / request.param)
    return tmp_path / request.param


def exact(removed: set[int], k: int = 10) -> list[list[float]]:
    """Of each of ASKED the k largest cosines of distinct vectors that stand for a sample."""
    held = [n for n, key in enumerate(IDS) if int(key) not in removed]
    near = unit(ASKED) @ unit(np.unique(IMAGES[held], axis=0)).T
    return [sorted(row, reverse=True)[:k] for row in near.tolist()]


def share(searcher: Searcher, removed: set[int]) -> float:
    """Recall@10 of ASKED; every answer's cosine is compared with the sample's own vector."""
    keys, near = searcher.search(ASKED, 10)
    assert not {int(key) for key in keys.ravel()} & removed
    rows = np.searchsorted(IDS, keys)
    own = np.einsum("ijk,ik->ij", unit(IMAGES)[rows], unit(ASKED))
    assert near == pytest.approx(own, abs=1e-5)
    assert (np.diff(near, axis=1) <= 0).all()
    return float(
        np.mean([(n >= e[-1] - 1e-5).sum() / 10 for n, e in zip(near, exact(removed), strict=True)])
    )


def test_each_kind_finds_what_exact_search_finds(index: Path) -> None:
    """Would catch: codes that are not compared exactly, shards that are left out of a merge, a
    vector that is an answer twice, since two shards have it."""
    searcher = open_index(index)
    assert share(searcher, set()) >= RECALL
    keys, _ = searcher.search(IMAGES[:5].astype(np.float32), 20)
    assert keys[:, 0].tolist() == IDS[:5].tolist()
    assert not set(keys.ravel().tolist()) & set(IDS[-100:].tolist())
    assert searcher.duplicates(int(IDS[3])) == [int(IDS[-97])]
    assert searcher.duplicates(int(IDS[-97])) == [int(IDS[3])]
    assert searcher.duplicates(int(IDS[500])) == []
    pairs = searcher.pairs([int(IDS[-1]), 5, int(IDS[0])])
    assert pairs[int(IDS[0])] == (f"http://h.example/{IDS[0]}.jpg", f"text {IDS[0]}")
    assert set(pairs) == {int(IDS[0]), int(IDS[-1])}
    assert np.array_equal(searcher.vectors(IDS[[7, 2_000]]), IMAGES[[7, 2_000]].astype(np.float32))


def test_more_answers_than_vectors_are_padded(index: Path) -> None:
    """Would catch: rows of numpy's rubbish where there is no answer."""
    gone = IDS[20:].tolist()
    vector_index.remove(index, gone)
    keys, near = open_index(index).search(ASKED[:3], 30)
    assert [sorted(row[:20].tolist()) for row in keys] == [IDS[:20].tolist()] * 3
    assert (keys[:, 20:] == NOTHING).all()
    assert np.isneginf(near[:, 20:]).all()


@pytest.mark.parametrize("compact", [False, True])
def test_what_is_removed_is_no_answer(index: Path, compact: bool) -> None:
    """Would catch: an answer that was removed, one that is lost with its duplicate, fewer answers
    than asked for where removed ones were near, and an open index that does not notice."""
    searcher = open_index(index)
    assert not searcher.stale()
    gone = {int(key) for key in IDS[::3]}
    assert vector_index.remove(index, [*gone, 5], compact=compact) == (len(gone), 1)
    assert searcher.stale()
    # what was opened before goes on, whatever became of its files
    assert (searcher.search(ASKED, 10)[0] != NOTHING).all()
    assert searcher.pairs([int(IDS[1])])
    again = open_index(index)
    assert share(again, gone) >= RECALL
    # the copy of a removed sample stands for it
    copy = int(IDS[ROWS - 100 + 3])
    assert int(IDS[3]) in gone
    assert copy not in gone
    assert int(again.search(IMAGES[3:4].astype(np.float32), 1)[0][0, 0]) == copy
    assert vector_index.sample_ids(index) == [int(key) for key in IDS if int(key) not in gone]
    info = read_info(index)
    assert (info.samples, info.removed) == (ROWS - len(gone), len(gone))
    with pytest.raises(UserError, match="is not in the index"):
        again.vector(int(IDS[3]))
    assert not again.pairs([int(IDS[3])])
    texts = b"".join(path.read_bytes() for path in index.rglob("pairs.arrow"))
    assert f"http://h.example/{IDS[3]}.jpg".encode() not in texts


def test_searches_of_other_efforts_do_not_meet(index: Path) -> None:
    """Would catch: one query's number of candidates that is taken for another's at the same time,
    as usearch keeps it in the index."""
    searcher = open_index(index)
    efforts = (16, 64, 256)
    alone = {effort: searcher.search(ASKED, 10, effort=effort)[0] for effort in efforts}
    wrong: list[int] = []
    start = threading.Barrier(6)

    def ask(effort: int) -> None:
        start.wait()
        for _ in range(4):
            if not np.array_equal(searcher.search(ASKED, 10, effort=effort)[0], alone[effort]):
                wrong.append(effort)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=ask, args=(effort,)) for effort in efforts * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert not wrong


def test_a_build_goes_on_where_it_was_interrupted(export: Path, tmp_path: Path) -> None:
    """Would catch: a finished shard that is built again, or one half there that is taken; and one
    of another wish, which is no part of this index."""
    started: list[str] = []

    def stop_at(last: str) -> object:
        def report(what: str, done: int, total: int) -> None:
            started.append(what)
            if last in what:
                raise KeyboardInterrupt

        return report

    out, memory = tmp_path / "index", ROWS * 364 // 3
    with pytest.raises(KeyboardInterrupt):
        vector_index.build(export, out, kind="hnsw", memory=memory, queries=0,
                           progress=stop_at("indexing of shard 3"))  # type: ignore[arg-type]  # fmt: skip
    assert not out.exists()
    started.clear()
    info = vector_index.build(export, out, kind="hnsw", memory=memory, queries=0,
                              progress=stop_at("nothing"))  # type: ignore[arg-type]  # fmt: skip
    built = {int(what.rpartition(" of shard ")[2].split()[0]) for what in started}
    assert built == set(range(3, len(info.shards) + 1))
    assert share(open_index(out), set()) >= RECALL
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("name", ["keys.npy", "pairs.arrow", "removed.npy", "hashes.npy",
                                  "embeddings.npy", "images.faiss"])  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "short", "junk"])
def test_damage_is_a_sentence(
    indexes: dict[str, Path], tmp_path: Path, name: str, damage: str
) -> None:
    """Would catch: a traceback, or an end of the process, in place of a sentence."""
    shutil.copytree(indexes["ivfpq"], tmp_path / "index")
    (path,) = (tmp_path / "index").glob(f"*/{name}")
    body = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(body[: len(body) // 2] if damage == "short" else b"junk" * 100)
    with pytest.raises(UserError, match="is damaged"):
        open_index(tmp_path / "index")


def test_parts_that_are_no_parts_are_not_merged(indexes: dict[str, Path], tmp_path: Path) -> None:
    """Would catch: samples that are in an index twice, and vectors of two models in one."""
    part = indexes["hnsw"].parent / "part-1"
    with pytest.raises(UserError, match="have samples in common"):
        vector_index.merge([part, indexes["hnsw"]], tmp_path / "out")
    other = exported(tmp_path / "other", IMAGES[:50], TEXTS[:50], digest="d2")
    vector_index.build(other, tmp_path / "small", queries=0)
    with pytest.raises(UserError, match="of another model or release"):
        vector_index.merge([part, tmp_path / "small"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "kind", "memory", "chosen", "shards", "why"),
    [
        (10**6, "auto", 8 * 10**9, "hnsw", 1, "within the memory of 8.0 GB"),
        (10**7, "auto", 4 * 10**9, "ivfpq", 1, "beyond the memory of 4.0 GB"),
        (10**8, "auto", 4 * 10**9, "ivfpq", 5, "beyond the memory"),
        (10**7, "hnsw", 4 * 10**9, "hnsw", 4, "asked for; a graph of 10,000,000"),
        (0, "auto", 10**9, "hnsw", 1, "a graph of 0 vectors"),
    ],
)
def test_the_kind_is_chosen_by_size(
    rows: int, kind: str, memory: int, chosen: str, shards: int, why: str
) -> None:
    """Would catch: a graph that memory does not hold, shards that leave rows out."""
    made = plan(rows, 512, kind, memory)
    assert (made.kind, len(made.shards)) == (chosen, shards)
    assert why in made.why
    assert [start for start, _ in made.shards] == [0, *(stop for _, stop in made.shards[:-1])]
    assert made.shards[-1][1] == rows


def test_without_faiss_there_are_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a build that ends for a package that nobody asked for."""
    monkeypatch.setattr("pairmill.ops.vectors.index_plan.find_spec", lambda name: None)
    made = plan(10**8, 512, "auto", 20 * 10**9)
    assert made.kind == "hnsw"
    assert "pip install 'pairmill[index,ivfpq]'" in made.why
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "pairmill.ops.vectors.ivfpq", raising=False)
    with pytest.raises(UserError, match=r"pip install 'pairmill\[index,ivfpq\]'"):
        plan(10**8, 512, "ivfpq", 20 * 10**9)


@pytest.mark.parametrize("text", ["", "8", "GB", "-1GB", "8 XB", "nan", "1e400GB"])
def test_memory_that_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="is no size of memory"):
        parsed_size(text)
    assert parsed_size("8 GB") == parsed_size("8g") == 8 * 10**9


def test_one_vector_wants_no_neighbour_of_itself(index: Path) -> None:
    """Would catch: a copy of the question's image, in another shard, that is an answer to it."""
    searcher = open_index(index)
    answers = nearest(searcher, searcher.vector(int(IDS[2])), 10, but=int(IDS[2]))
    assert len(answers) == 10
    assert answers[0].similarity < 0.999
    assert json.loads((index / "index.json").read_text())["kind"] in ("hnsw", "ivfpq")

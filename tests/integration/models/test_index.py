"""The index: what it finds is what exact search finds, and what is removed is gone."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pairmill.ops.admin import removal
from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import attributes, caption
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.ops.errors import UserError
from pairmill.ops.vectors import embeddings, query_vectors
from pairmill.ops.vectors import index as vector_index
from pairmill.ops.vectors.hnsw import GRAPH_FILE, Graph, GraphBuilder
from pairmill.ops.vectors.index_info import silent
from pairmill.ops.vectors.opened import nearest as ask
from pairmill.ops.vectors.opened import open_index
from pairmill.ops.vectors.recall import Questions, exact, shares, unit
from pairmill.workers.errors import Refused
from pairmill.workers.score.model import Model, load
from support.database import Database
from support.exports import exported, sample_ids, vectors
from support.line import wait_until

SHARD = "shard-000-0000"
DIMS = 32
ROWS = 1_500


IMAGES, TEXTS = vectors(ROWS, 1), vectors(ROWS, 2)
IDS = sample_ids(ROWS)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("export") / "export", IMAGES, TEXTS)


@pytest.fixture(scope="module")
def built(export: Path) -> Path:
    vector_index.build(export, export.parent / "index", queries=0)
    return export.parent / "index"


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    """An index that a test may change."""
    shutil.copytree(built, tmp_path / "index")
    return tmp_path / "index"


def nearest(vector: np.ndarray, k: int, but: int | None = None) -> list[float]:
    """Similarities of the k nearest images, by comparing with all."""
    near = IMAGES.astype(np.float32) @ vector.astype(np.float32)
    if but is not None:
        near[IDS.index(but)] = -2
    return sorted(near.tolist(), reverse=True)[:k]


def test_answers_are_those_of_exact_search(index: Path) -> None:
    opened = open_index(index)
    assert opened.info.vectors == opened.info.samples == ROWS
    good = 0
    for i in range(0, ROWS, 15):
        for query, but in ((IMAGES[i], IDS[i]), (TEXTS[i], None)):
            answers = ask(opened, query.astype(np.float32), 10, but=but)
            similarities = [a.similarity for a in answers]
            assert similarities == sorted(similarities, reverse=True)
            assert but not in [a.sample_id for a in answers]
            good += np.allclose(similarities, nearest(query, 10, but), atol=1e-3)
            for answer in answers:
                own = IMAGES[IDS.index(answer.sample_id)].astype(np.float32)
                assert answer.similarity == pytest.approx(
                    float(own @ query.astype(np.float32)), abs=2e-3
                )
                assert answer.url == f"http://h.example/{answer.sample_id}.jpg"
                assert answer.text == f"text {answer.sample_id}"
    assert good >= 0.95 * 200


def test_a_vectors_length_changes_nothing(index: Path) -> None:
    opened = open_index(index)
    query = TEXTS[7].astype(np.float32)
    assert [a.sample_id for a in ask(opened, 5 * query)] == [
        a.sample_id for a in ask(opened, query)
    ]
    for wrong in (np.zeros(DIMS), np.full(DIMS, np.nan), np.ones(DIMS + 1)):
        with pytest.raises(UserError, match="no vector of 32 finite numbers"):
            ask(opened, wrong.astype(np.float32))


def test_recall_is_against_exact_search(export: Path, tmp_path: Path) -> None:
    info = vector_index.build(export, tmp_path / "index", queries=100)
    assert info.recall_at_10["queries"] == 100
    assert info.recall_at_10["image"] >= 0.95  # what a build wants by default
    assert info.recall_at_10["text"] >= 0.95
    assert vector_index.read_info(tmp_path / "index") == info


def test_recall_of_a_bad_index_is_low(tmp_path: Path) -> None:
    """An index of half the vectors finds about half of the neighbours."""
    builder = GraphBuilder(DIMS)
    builder.add(IMAGES)
    builder.save(tmp_path / GRAPH_FILE)
    asked = unit(TEXTS[:200])
    questions = Questions(asked, np.full(200, -1))
    tenth = exact(Graph(tmp_path), questions, silent)
    assert tenth == pytest.approx([nearest(q, 10)[-1] for q in TEXTS[:200]], abs=1e-3)
    near = [np.sort(unit(IMAGES[::2]) @ query)[::-1] for query in asked]
    assert 0.4 < (shares(near, tenth).image or 0) < 0.6


@pytest.fixture
def duplicates(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An index of 100 images, of which the first stands under 200 further URLs, the second under
    one; and its vectors."""
    distinct = vectors(100, 4)
    images = np.concatenate([np.repeat(distinct[:1], 200, axis=0), distinct[1:2], distinct])
    export = exported(tmp_path / "export", images, images, shard=150)
    info = vector_index.build(export, tmp_path / "index")
    assert (info.samples, info.vectors) == (301, 100)
    # with 200 equal vectors in the graph, most of the others are not found
    assert info.recall_at_10["image"] >= 0.99
    return tmp_path / "index", images


def test_duplicates_of_an_image_are_one_answer(duplicates: tuple[Path, np.ndarray]) -> None:
    folder, images = duplicates
    ids = sample_ids(301)
    opened = open_index(folder)
    answers = ask(opened, images[0].astype(np.float32), 100)
    assert len({a.sample_id for a in answers}) == 100
    assert (answers[0].sample_id, answers[0].duplicates) == (ids[0], 200)
    assert {a.sample_id: a.duplicates for a in answers if a.duplicates} == {
        ids[0]: 200,
        ids[200]: 1,
    }
    # any of the copies is as good a question, and none an answer to it
    for sample in (ids[0], ids[77], ids[201]):
        assert np.array_equal(opened.vector(sample), images[0].astype(np.float32))
        assert ask(opened, opened.vector(sample), but=sample)[0].similarity < 0.99


def test_a_duplicate_takes_the_place_of_what_is_removed(
    duplicates: tuple[Path, np.ndarray],
) -> None:
    folder, images = duplicates
    ids = sample_ids(301)
    query = images[0].astype(np.float32)
    assert vector_index.remove(folder, [ids[0], ids[2], ids[200]]) == (3, 0)
    info = vector_index.read_info(folder)
    assert (info.samples, info.vectors, info.removed) == (298, 100, 3)
    first = ask(open_index(folder), query)[0]
    assert (first.sample_id, first.duplicates) == (ids[1], 198)
    assert first.url == f"http://h.example/{ids[1]}.jpg"
    with pytest.raises(UserError, match="is not in the index"):
        open_index(folder).vector(ids[0])
    # of the second image the copy alone is left, then nothing
    assert ask(open_index(folder), images[200].astype(np.float32))[0].sample_id == ids[202]
    assert vector_index.remove(folder, [ids[202]]) == (1, 0)
    assert ask(open_index(folder), images[200].astype(np.float32))[0].similarity < 0.99
    # all at once
    assert vector_index.remove(folder, [*ids[:200], ids[201]], compact=True) == (199, 2)
    assert vector_index.read_info(folder).vectors == 98
    assert ask(open_index(folder), query)[0].similarity < 0.99


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_few_vectors_are_an_index_too(tmp_path: Path, rows: int) -> None:
    export = exported(tmp_path / "export", IMAGES[:rows], TEXTS[:rows])
    info = vector_index.build(export, tmp_path / "index")
    assert info.recall_at_10 == {"image": None, "text": None, "queries": 0}
    answers = ask(open_index(tmp_path / "index"), TEXTS[0].astype(np.float32))
    assert sorted(a.sample_id for a in answers) == IDS[:rows]


@pytest.mark.parametrize("compact", [False, True])
def test_what_is_removed_is_found_by_nothing(index: Path, compact: bool) -> None:
    gone = IDS[::7]
    assert vector_index.remove(index, [*gone, 5], compact=compact) == (len(gone), 1)
    opened = open_index(index)
    assert (opened.info.vectors, opened.info.removed) == (ROWS - len(gone), len(gone))
    assert vector_index.sample_ids(index) == [i for i in IDS if i not in gone]
    for i in range(0, ROWS, 7):
        answers = ask(opened, IMAGES[i].astype(np.float32))
        assert len(answers) == 10
        assert not {a.sample_id for a in answers} & set(gone)
        assert all(a.url for a in answers)
    with pytest.raises(UserError, match="is not in the index"):
        opened.vector(gone[0])
    (shard,) = (path for path in index.iterdir() if path.is_dir())
    body = (shard / GRAPH_FILE).read_bytes()
    assert (IMAGES[0].tobytes() in body) == (not compact)
    assert IMAGES[1].tobytes() in body
    texts = (shard / "pairs.arrow").read_bytes()
    assert b"text 0text" not in texts
    assert b"text 3text" in texts


def test_recall_after_removals(index: Path) -> None:
    """Half of all is removed, and of what is left the neighbours are found still."""
    vector_index.remove(index, IDS[::2])
    kept = IMAGES[1::2].astype(np.float32)
    opened = open_index(index)
    shares = []
    for query in TEXTS[:200].astype(np.float32):
        tenth = np.sort(kept @ query)[-10]
        shares.append(np.mean([a.similarity >= tenth - 1e-3 for a in ask(opened, query)]))
    assert np.mean(shares) >= 0.95


def test_a_dry_run_changes_nothing(index: Path) -> None:
    before = {p.name: p.read_bytes() for p in index.rglob("*.*") if p.is_file()}
    assert vector_index.remove(index, [IDS[0], 5], dry_run=True) == (1, 1)
    assert {p.name: p.read_bytes() for p in index.rglob("*.*") if p.is_file()} == before


def test_an_interrupted_removal_is_finished_by_the_next(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vector_index, "write_info", stop)
    with pytest.raises(KeyboardInterrupt):
        vector_index.remove(index, IDS[:3])
    monkeypatch.undo()
    # what says that a sample is gone is written first: nobody finds it, though its text is there
    answers = ask(open_index(index), IMAGES[0].astype(np.float32))
    assert not {a.sample_id for a in answers} & set(IDS[:3])
    assert b"text 3text" in (index / SHARD / "pairs.arrow").read_bytes()
    assert vector_index.remove(index, IDS[:3]) == (0, 3)
    assert vector_index.sample_ids(index) == IDS[3:]
    assert vector_index.read_info(index).vectors == ROWS - 3
    assert b"text 3text" not in (index / SHARD / "pairs.arrow").read_bytes()


def test_interrupted_build_leaves_nothing(export: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "exact search":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vector_index.build(export, tmp_path / "index", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_command_and_leaves_nothing(tmp_path: Path) -> None:
    many = vectors(8_000, 5, 256)
    export = exported(tmp_path / "export", many, many)
    command = ["index", "build", str(export), "--out", str(tmp_path / "index")]
    child = subprocess.Popen(
        [sys.executable, "-m", "pairmill.ops.cli", *command], stderr=subprocess.PIPE, text=True
    )
    wait_until(
        (tmp_path / ".index.unfinished" / SHARD / "pairs.arrow").exists, "the build's beginning"
    )
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_what_is_no_export_is_refused(export: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a release nor an export"):
        vector_index.build(tmp_path, tmp_path / "index")
    with pytest.raises(UserError, match="is not empty"):
        vector_index.build(export, export)
    damaged = exported(tmp_path / "damaged", IMAGES, TEXTS)
    (damaged / "img_emb" / "img_emb_1.npy").write_bytes(b"junk")
    with pytest.raises(UserError, match="is damaged"):
        vector_index.build(damaged, tmp_path / "index")
    np.save(damaged / "img_emb" / "img_emb_1.npy", IMAGES[:7])
    with pytest.raises(UserError, match="the files of shard 1 have other rows or dims"):
        vector_index.build(damaged, tmp_path / "index")
    assert [p.name for p in tmp_path.iterdir()] == ["damaged"]


def test_what_is_no_index_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no index: make one"):
        open_index(tmp_path)
    body = (index / SHARD / GRAPH_FILE).read_bytes()
    (index / SHARD / GRAPH_FILE).write_bytes(body[:100])
    with pytest.raises(UserError, match="is damaged"):
        open_index(index)
    (index / SHARD / GRAPH_FILE).unlink()
    with pytest.raises(UserError, match="lacks"):
        open_index(index)
    (index / "index.json").write_text("[]")
    with pytest.raises(UserError, match="is not what"):
        open_index(index)


def test_removals_of_the_database_are_what_is_deleted(db: Database, tmp_path: Path) -> None:
    urls = [f"http://h{i}.example/{i}.jpg" for i in range(6)]
    db.extract(urls)
    db.close_batches()
    db.download()
    ids = dict(db.rows("select url, sample_id from report.pair"))
    held = sorted(ids.values())
    assert embeddings.removed_of(db.admin, held) == []
    removal.add(db.admin, [urls[1]], "", False)
    sha256 = db.value("select sha256 from mill.download where n = %s", ids[urls[2]] & 16383)
    removal.add(db.admin, [bytes(sha256).hex()], "", False)
    assert embeddings.removed_of(db.admin, held) == sorted([ids[urls[1]], ids[urls[2]]])
    assert embeddings.removed_of(db.admin, [i for i in held if i != ids[urls[1]]]) == [ids[urls[2]]]


SEEDS = range(HELD_OUT, HELD_OUT + 200)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(str(demo.PATH), device="cpu")


@pytest.fixture(scope="module")
def drawings(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the demo's drawings, by the demo's model."""
    folder = tmp_path_factory.mktemp("drawings")
    scores = model.score([thumbnail(s) for s in SEEDS], [caption(s, attributes(s)) for s in SEEDS])
    export = exported(
        folder / "export", scores.image_embedding, scores.text_embedding, digest=model.digest
    )
    vector_index.build(export, folder / "index")
    return folder / "index"


def test_a_text_finds_what_it_describes(drawings: Path, model: Model) -> None:
    opened = open_index(drawings)
    ids = sample_ids(len(SEEDS))
    ranks = []
    for sample, seed in zip(ids[:60], SEEDS, strict=False):
        vector = query_vectors.of_text(model, caption(seed, attributes(seed)))
        answers = [a.sample_id for a in ask(opened, vector, len(ids))]
        ranks.append(answers.index(sample))
    assert np.median(ranks) <= 10  # of 200; by chance 100


def test_an_image_finds_itself(drawings: Path, model: Model, tmp_path: Path) -> None:
    opened = open_index(drawings)
    ids = sample_ids(len(SEEDS))
    for sample, seed in list(zip(ids, SEEDS, strict=True))[:20]:
        (tmp_path / "image").write_bytes(thumbnail(seed))
        best = ask(opened, query_vectors.of_image(model, tmp_path / "image"), 3)[0]
        assert best.sample_id == sample
        assert best.similarity > 0.99
        with Image.open(
            tmp_path / "image"
        ) as image:  # as it is on the web, before it is made small
            large = image.resize((2 * image.width, 2 * image.height))
            large.save(tmp_path / "large.png", compress_level=1)
        answers = ask(opened, query_vectors.of_image(model, tmp_path / "large.png"), 3)
        assert sample in [a.sample_id for a in answers]


def test_queries_that_cannot_be_asked(model: Model, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match="is no image that can be read"):
        query_vectors.of_image(model, tmp_path / "text.jpg")
    with pytest.raises(UserError, match="there is no file"):
        query_vectors.of_image(model, tmp_path / "none.jpg")
    with pytest.raises(UserError, match="--text is empty"):
        query_vectors.of_text(model, " ")


def test_the_query_is_by_the_indexs_own_model(drawings: Path, index: Path) -> None:
    info = open_index(drawings).info
    other = replace(info, model=info.model | {"digest": "f" * 64}).model
    with pytest.raises(UserError, match="and the index is of model-d1 with ffffffffffff"):
        query_vectors.load(other, str(demo.PATH), "", "cpu")
    with pytest.raises(UserError, match="name the index's model with --model"):
        query_vectors.load(other, None, "", "cpu")
    with pytest.raises(Refused):
        query_vectors.load(info.model, "no-such-model", "", "cpu")
    assert query_vectors.load(info.model, str(demo.PATH), "", "cpu").dims == info.dims

"""All methods together: who goes, for whom, and whom a removal takes along."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmill.ops.archive import columns
from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import decontaminate
from pairmill.ops.dedupe.duplicate_search import find_duplicates
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.errors import UserError
from pairmill.workers.download.decode import decode

A, B = 0x0F1E2D3C4B5A6978, 0x369CF0A55AC3F00F  # far from one another, 32 ones each
ROWS = {
    # sample_id: url, text, sha256, dhash, width, similarity, removed
    1: ("http://a.example/1.jpg", "first", b"1", A, 100, 0.2, False),
    2: ("https://www.a.example/1.jpg?utm_source=x", "second", b"2", B, 900, 0.9, False),
    3: ("http://b.example/3.jpg", "third", b"1", A, 300, None, False),
    4: ("http://c.example/4.jpg", "A caption that is long enough to count", b"4", 0, 1, 0.1, False),
    5: (
        "http://c.example/5.jpg",
        "a CAPTION  that is long enough to count",
        b"5",
        1,
        1,
        0.1,
        False,
    ),
    6: ("http://d.example/6.jpg", "sixth", b"6", B ^ 0b111, 100, 0.5, False),
    7: ("http://d.example/7.jpg", "seventh", b"7", B ^ 0b111111, 100, 0.5, False),
    8: ("http://d.example/8.jpg", "eighth", b"8", None, 100, 0.5, None),
}


@pytest.fixture
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def put(db: duckdb.DuckDBPyConnection, removed: tuple[int, ...] = (), **changed: Any) -> None:
    names = ("url", "text", "sha256", "dhash", "width", "similarity", "removed")
    columns = {name: [row[n] for row in ROWS.values()] for n, name in enumerate(names)}
    columns["removed"] = [n in removed or row[-1] for n, row in ROWS.items()]
    kinds = {"dhash": pa.int64(), "similarity": pa.float32(), "removed": pa.bool_()}
    table = {"sample_id": list(ROWS), "height": [10] * len(ROWS), **columns, **changed}
    db.register("pool", pa.table({n: pa.array(v, kinds.get(n)) for n, v in table.items()}))


def found(
    db: duckdb.DuckDBPyConnection, folder: Path, spec: Dedupe, facts: tuple[Facts, ...] = ()
) -> dict[int, tuple[int | None, str]]:
    find_duplicates(db, "pool", spec, facts, folder, model_id=1 if facts else None)
    assert not list(folder.iterdir())
    rows = db.execute("SELECT sample_id, of, method FROM duplicate ORDER BY sample_id").fetchall()
    return {sample: (of, method) for sample, of, method in rows}


NEAR = Dedupe(dhash_radius=3)


@pytest.mark.parametrize(
    ("spec", "goes"),
    [
        (Dedupe(exact=["url"]), {2: (1, "url")}),
        (Dedupe(exact=["url_text"]), {}),
        (Dedupe(), {2: (1, "url"), 3: (1, "bytes")}),
        (Dedupe(representative="largest"), {1: (2, "url")}),
        (Dedupe(representative="highest_similarity"), {1: (2, "url")}),
        # 7 is 6 bits from 2 and 3 from 6, which goes: it stays. 4 and 5 are flat
        (Dedupe(exact=[], dhash_radius=3), {3: (1, "dhash"), 6: (2, "dhash")}),
        (Dedupe(exact=[], dhash_radius=3, representative="highest_similarity"),
         {3: (1, "dhash"), 6: (2, "dhash")}),
        # 1 is 2's first by bytes and its group has 2's in turn: 6 is nobody's, once 2 went
        (NEAR, {2: (1, "url"), 3: (1, "bytes"), 7: (6, "dhash")}),
        (Dedupe(exact=[], text="exact"), {5: (4, "text")}),
        (Dedupe(exact=[], text="exact", min_text_length=60), {}),
    ],
)  # fmt: skip
def test_each_method_takes_its_own(
    db: duckdb.DuckDBPyConnection, tmp_path: Path, spec: Dedupe, goes: dict[int, Any]
) -> None:
    """Would catch: a method that runs over what went before, chains of near hashes, flat images
    that are taken for one, a representative that goes, NULLs that are equal."""
    put(db)
    assert found(db, tmp_path, spec) == goes


def test_a_removal_takes_along_what_is_the_same_image(
    db: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Would catch: a removed row that stays behind its group, or whose caption condemns others."""
    put(db, removed=(3, 5, 7))
    spec = Dedupe(dhash_radius=3, text="exact")
    # 6 is near 7; 1 has the bytes of 3. 4 only says what 5 says, and stays with nobody's help
    assert found(db, tmp_path, spec) == {}
    groups = db.execute("FROM duplicate_group ORDER BY ALL").fetchall()
    assert groups == [(1, 3), (2, 3), (3, 3), (6, 7), (7, 7)]


def test_two_removed_rows_take_each_their_own(
    db: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Would catch: a removed row that went for another one, and left its own neighbour behind."""
    put(db, removed=(2, 6))
    assert found(db, tmp_path, Dedupe(exact=[], dhash_radius=3)) == {3: (1, "dhash")}
    assert (7, 6) in db.execute("FROM duplicate_group").fetchall()


def test_a_removed_row_of_one_url_with_another_takes_its_own(
    db: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Would catch: two removed rows of one URL with different images, of which only the first's
    are taken along."""
    put(db, removed=(1, 2))
    assert found(db, tmp_path, NEAR) == {}  # 1 takes 3, and 2 takes 6: 7 is 6's, which went
    assert {(3, 1), (6, 2)} <= set(db.execute("FROM duplicate_group").fetchall())


def embeddings(folder: Path, vectors: dict[int, list[float]]) -> Facts:
    """Facts that have these image embeddings."""
    facts = Facts(str(folder), 0, 0)
    schema = columns.embedding(2)
    made = [
        {"sample_id": n, "counts": True, "attempt": 1, "image": np.asarray(v, np.float16).tolist(),
         "text": [0.0, 0.0], "submission_id": 1}
        for n, v in vectors.items()
    ]  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(made, schema), facts.path("embedding", 1))
    return facts


def test_a_second_signal_keeps_apart_what_only_hashes_alike(
    db: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Would catch: a cosine of the wrong rows, and one without an embedding that goes."""
    put(db, dhash=[A, A, A, A, A, A ^ 1, A ^ 3, A ^ 7])
    angles = {1: 0.0, 2: 1.5, 3: 0.1, 4: 1.4, 5: 3.0, 6: 0.05, 7: 1.55}
    facts = embeddings(tmp_path / "f", {n: [np.cos(a), np.sin(a)] for n, a in angles.items()})
    spec = Dedupe(exact=[], dhash_radius=3, min_cosine=0.9)
    goes = found(db, tmp_path / "w", spec, (facts,))
    assert goes == {n: (of, "dhash") for n, of in {3: 1, 4: 2, 6: 1, 7: 2}.items()}
    meaning = found(db, tmp_path / "w", Dedupe(exact=[], semantic_cosine=0.9, semantic_clusters=1),
                    (facts,))  # fmt: skip
    assert meaning == {n: (of, "semantic") for n, (of, _) in goes.items()}


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_near_a_removed_image_goes_without_its_embedding(
    db: duckdb.DuckDBPyConnection, tmp_path: Path, *, kept: bool
) -> None:
    """Would catch: near-duplicates of a removed image that stay since the removal deleted its
    embedding, and other rows where the archive still has it."""
    put(db, (2,), dhash=[A, B, A, None, None, B, B ^ 7, None])
    angles = {1: 0.0, 3: 0.1, 6: 1.5, 7: 3.0} | ({2: 1.5} if kept else {})
    facts = embeddings(tmp_path / "f", {n: [np.cos(a), np.sin(a)] for n, a in angles.items()})
    spec = Dedupe(exact=[], dhash_radius=3, min_cosine=0.9)
    assert found(db, tmp_path / "w", spec, (facts,)) == {3: (1, "dhash")}
    groups = db.execute("FROM duplicate_group ORDER BY ALL").fetchall()
    assert groups == [(1, 1), (2, 2), (3, 1), (6, 2), (7, 2)]


def test_an_evaluation_image_takes_its_duplicates_along(
    db: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Would catch: an evaluation set's image that stays under another URL, and one with a name
    that SQL would read."""
    folder = tmp_path / "it's a set"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "x.png")
    (folder / "labels.txt").write_text("cat", "utf-8")
    dhash = decode((folder / "x.png").read_bytes()).dhash
    decontaminate.write_set(folder, tmp_path / "set.parquet")
    put(db, dhash=[A, A, dhash ^ 2, *[B] * 5])
    for given in (str(folder), str(tmp_path / "set.parquet")):
        goes = found(db, tmp_path / "w", Dedupe(decontaminate=[given]))
        assert goes == dict.fromkeys((1, 2, 3), (None, "decontamination"))
        assert db.execute("FROM contaminated").fetchall() == [(3, "it's a set", "x.png")]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (Dedupe(dhash_radius=3, min_cosine=0.9), "needs a model"),
        (Dedupe(decontaminate=["/nowhere"]), "there is no evaluation set /nowhere"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_is_left(
    db: duckdb.DuckDBPyConnection, tmp_path: Path, spec: Dedupe, says: str
) -> None:
    """Would catch: a release without the dedupe that its recipe asks for; a file left behind."""
    put(db)
    with pytest.raises(UserError, match=says):
        find_duplicates(db, "pool", spec, (), tmp_path, model_id=None)
    assert not list(tmp_path.iterdir())


def test_an_empty_pool_needs_no_embeddings(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Would catch: a rehearsal before anything is scored that fails, and a search without a pair."""
    put(db)
    db.execute("CREATE VIEW nothing AS FROM pool WHERE false")
    for spec in (Dedupe(dhash_radius=3, min_cosine=0.9), Dedupe(semantic_cosine=0.9, text="near")):
        work = tmp_path / "work"
        findings = find_duplicates(
            db, "nothing", spec, [Facts(str(tmp_path), 0, 0)], work, model_id=1
        )
        assert {each.rows for each in findings} == {0}


def test_facts_without_embeddings_are_said(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Would catch: near images that are nobody's duplicates, for want of embeddings; and a recipe
    that compares none, and has no model, which is asked for them."""
    put(db)
    facts = Facts(str(tmp_path), 0, 0)
    find_duplicates(db, "pool", NEAR, [facts], tmp_path, model_id=None)
    with pytest.raises(UserError, match="the facts have none"):
        spec = Dedupe(semantic_cosine=0.9)
        find_duplicates(db, "pool", spec, [facts], tmp_path, model_id=1)
    Path(facts.path("embedding", 1)).write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        find_duplicates(db, "pool", spec, [facts], tmp_path, model_id=1)

"""Embeddings out of the database: the layouts, what is left out and why, and the same bytes."""

import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from embedding_reader import EmbeddingReader

from pairmill.ops.admin import removal
from pairmill.ops.archive.catalogue import partitions
from pairmill.ops.archive.generations import archive, to_archive
from pairmill.ops.archive.restore import restore
from pairmill.ops.errors import UserError
from pairmill.ops.release import folder, release
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.vectors import embeddings
from support.database import DIMS, Database, outcomes, pair_rows

N = 12
URLS = [f"http://h{i}.example/{i}.jpg" for i in range(N)]


def vectors(n: int, seed: int) -> np.ndarray:
    """float16[n, DIMS], L2-normalised."""
    drawn = np.random.default_rng(seed).standard_normal((n, DIMS))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


IMAGES, TEXTS = vectors(4 * N, 1), vectors(4 * N, 2)


@pytest.fixture
def scored(db: Database) -> Database:
    """N pairs of a few batches, all scored; the embeddings of position n of batch b are row
    4 * b + n of IMAGES and TEXTS."""
    db.admin.execute("update mill.setting set batch_size = 4, open_batches_max = 1")
    db.add_model()
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, URLS))
    queue.submit_extract(claim.lease_id, N, [("image", "links", "", N)])
    db.accept_all()
    db.close_batches()
    while download(db):
        score(db)
    return db


def download(db: Database) -> bool:
    claim = db.claim("download")
    if claim is None:
        return False
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes([n for n, _ in queue.urls(claim.lease_id)]))
    queue.complete(claim.lease_id)
    db.accept_all()
    return True


def score(db: Database, images: np.ndarray = IMAGES) -> None:
    claim = db.claim("score", digest="d1")
    assert claim
    queue, _ = db.queue("score")
    of_batch = "select batch_id from mill.lease join mill.task using (task_id) where lease_id = %s"
    first = 4 * db.value(of_batch, claim.lease_id)
    rows = [
        (claim.lease_id, 0, n, 0, 0.5, images[first + n].tobytes(), TEXTS[first + n].tobytes(), 5)
        for n, *_ in queue.thumbnails(claim.lease_id, 0, 20_000)
    ]
    queue.copy_scores(rows)
    queue.submit_score(claim.lease_id, 0, len(rows))
    queue.complete(claim.lease_id)
    db.accept_all()


def released(db: Database, out: Path, shard_rows: int = 5, **values: Any) -> Path:
    recipe = Recipe(
        name="test", version=1, description="A test", licence="CC0-1.0", model="model-d1",
        min_similarity=-1.0, languages=[], **values,
    )  # fmt: skip
    release.build(db.admin, recipe, out, shard_rows=shard_rows)
    return out


def describe(source: Path, manifest: str) -> None:
    """Give a release another manifest."""
    schema = pq.read_schema(source / folder.NAME).with_metadata({"manifest.json": manifest})
    pq.ParquetWriter(source / folder.NAME, schema).close()


def row_of(sample_id: int) -> int:
    return 4 * (sample_id >> 14) + (sample_id & 16383)


def sample(db: Database, url: str) -> int:
    return int(db.value("select sample_id from report.pair where url = %s", url))


def arrays(out: Path) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """All shards' arrays and metadata, in order."""
    images = np.concatenate([np.load(p) for p in sorted(out.glob("img_emb/*.npy"))])
    texts = np.concatenate([np.load(p) for p in sorted(out.glob("text_emb/*.npy"))])
    tables = [pq.read_table(p) for p in sorted(out.glob("metadata/*.parquet"))]
    return images, texts, [row for table in tables for row in table.to_pylist()]


def test_rows_are_aligned_and_the_very_bytes_of_the_database(
    scored: Database, tmp_path: Path
) -> None:
    source = released(scored, tmp_path / "release")
    done = embeddings.export(scored.admin, source, tmp_path / "out")
    images, texts, rows = arrays(tmp_path / "out")
    assert (done.rows, done.left_out, done.dims) == (N, {}, DIMS)
    assert images.dtype == texts.dtype == np.dtype("<f2")
    assert images.shape == texts.shape == (N, DIMS)
    at = [row_of(row["SAMPLE_ID"]) for row in rows]
    assert np.array_equal(images, IMAGES[at])
    assert np.array_equal(texts, TEXTS[at])
    kept = pq.read_table([source / f"part-0000{i}.parquet" for i in range(3)]).to_pylist()
    for row, original in zip(rows, kept, strict=True):
        assert row["image_path"] == str(original["SAMPLE_ID"])
        assert (row["caption"], row["url"]) == (original.pop("TEXT"), original.pop("URL"))
        assert original.items() <= row.items()
    assert [f["name"] for f in done.files] == [
        f"{kind}_{n}{ending}"
        for n in range(3)
        for kind, ending in (
            ("img_emb/img_emb", ".npy"), ("text_emb/text_emb", ".npy"), ("metadata/metadata", ".parquet"),
        )
    ]  # fmt: skip
    assert [f["rows"] for f in done.files] == [5] * 6 + [2] * 3


def test_the_layouts_own_reader_reads_it(scored: Database, tmp_path: Path) -> None:
    """embedding-reader is what autofaiss reads with."""
    source = released(scored, tmp_path / "release")
    embeddings.export(scored.admin, source, tmp_path / "out")
    reader = EmbeddingReader(
        embeddings_folder=str(tmp_path / "out" / "img_emb"),
        metadata_folder=str(tmp_path / "out" / "metadata"),
        meta_columns=["SAMPLE_ID", "caption"],
        file_format="parquet_npy",
    )
    assert (reader.count, reader.dimension) == (N, DIMS)
    for found, meta in reader(batch_size=4, show_progress=False):
        assert np.array_equal(
            found, IMAGES[[row_of(i) for i in meta["SAMPLE_ID"]]].astype(np.float32)
        )


def test_more_than_ten_shards_are_in_the_order_of_their_names(
    scored: Database, tmp_path: Path
) -> None:
    source = released(scored, tmp_path / "release", shard_rows=1)
    embeddings.export(scored.admin, source, tmp_path / "out")
    images, _, rows = arrays(tmp_path / "out")
    assert (tmp_path / "out" / "img_emb" / "img_emb_00.npy").exists()
    assert np.array_equal(images, IMAGES[[row_of(row["SAMPLE_ID"]) for row in rows]])


@pytest.mark.parametrize("layout", ["pairmill", "datacomp"])
def test_npz_is_as_datacomp_has_it(scored: Database, tmp_path: Path, layout: str) -> None:
    """Fault: a release in DataComp's own layout, whose embeddings cannot be had."""
    source = released(scored, tmp_path / "release", layout=layout)
    done = embeddings.export(scored.admin, source, tmp_path / "out", layout="npz", prefix="b32")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "left_out.csv", "manifest.json", "part-00000.npz", "part-00000.parquet", "part-00001.npz",
        "part-00001.parquet", "part-00002.npz", "part-00002.parquet",
    ]  # fmt: skip
    seen = 0
    for path in sorted((tmp_path / "out").glob("*.npz")):
        rows = pq.read_table(path.with_suffix(".parquet")).to_pylist()
        with np.load(path) as file:
            assert file.files == ["b32_img", "b32_txt"]
            at = [row_of(int(row["uid"], 16)) for row in rows]
            assert np.array_equal(file["b32_img"], IMAGES[at])
            assert np.array_equal(file["b32_txt"], TEXTS[at])
        for row in rows:
            assert len(row["uid"]) == 32
            assert (row["original_width"], row["original_height"]) == (640, 480)
            # model-d1 is neither of DataComp's two
            score = 0.5 if layout == "pairmill" else None
            assert row["clip_b32_similarity_score"] == score
            assert row["text"] == "a text"
            assert layout == "pairmill" or (row["face_bboxes"], len(row["sha256"])) == ([], 64)
        seen += len(rows)
    assert seen == done.rows == N


def test_npz_needs_a_name_that_datacomp_knows(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")
    with pytest.raises(UserError, match="the release's model is model-d1: name them with --prefix"):
        embeddings.export(scored.admin, source, tmp_path / "out", layout="npz")
    with pytest.raises(UserError, match="unknown format 'tar'"):
        embeddings.export(scored.admin, source, tmp_path / "out", layout="tar")


@pytest.mark.parametrize("layout", embeddings.FORMATS)
def test_same_state_same_bytes(scored: Database, tmp_path: Path, layout: str) -> None:
    source = released(scored, tmp_path / "release")
    written = [
        embeddings.export(scored.admin, source, tmp_path / name, layout=layout, prefix="b32")
        for name in "ab"
    ]
    assert written[0] == written[1]
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == len(written[0].files) + 2
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_left_out_is_counted_and_named(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")
    removed, lost, changed, gone = (sample(scored, url) for url in URLS[:4])
    removal.add(scored.admin, [URLS[0]], "", False)
    for table in ("embedding", "score"):
        scored.admin.execute(
            f"delete from mill.{table} where batch_id = %s and n = %s", (lost >> 14, lost & 16383)
        )
    scored.admin.execute(
        "update mill.download set md5 = gen_random_uuid() where batch_id = %s and n = %s",
        (changed >> 14, changed & 16383),
    )
    scored.admin.execute(
        "delete from mill.pair where batch_id = %s and n = %s", (gone >> 14, gone & 16383)
    )
    done = embeddings.export(scored.admin, source, tmp_path / "out")
    assert done.left_out == {"missing": 2, "other_image": 1, "removed": 1}
    assert done.rows + sum(done.left_out.values()) == done.release["rows"] == N
    with (tmp_path / "out" / "left_out.csv").open() as file:
        named = [(int(row["SAMPLE_ID"]), row["reason"]) for row in csv.DictReader(file)]
    assert named == sorted(
        [(removed, "removed"), (lost, "missing"), (changed, "other_image"), (gone, "missing")]
    )
    images, texts, rows = arrays(tmp_path / "out")
    ids = [row["SAMPLE_ID"] for row in rows]
    assert set(ids) == {sample(scored, url) for url in URLS[4:]}
    assert np.array_equal(images, IMAGES[[row_of(i) for i in ids]])
    assert len(texts) == len(ids)
    assert done.removals["entries"] == "under 100"


def test_removals_by_the_images_hash_are_applied(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")
    md5, sha256 = scored.rows("select md5, sha256 from mill.download where n = 1 limit 1")[0]
    removal.add(scored.admin, [md5.hex], "", False)  # the test's images are the same by position
    done = embeddings.export(scored.admin, source, tmp_path / "a")
    assert done.left_out == {"removed": 3}
    # a cover row that stayed in would tell that the others are none
    cover = arrays(tmp_path / "a")[2][0]["SAMPLE_ID"]
    scored.admin.execute(
        "with d as (insert into mill.cover_draw (release_name, manifest_sha256, removals, covers)"
        " values ('', '', 1, 1) returning draw_id)"
        " insert into mill.cover_row (sample_id, draw_id) select %s, draw_id from d", (cover,),
    )  # fmt: skip
    assert embeddings.export(scored.admin, source, tmp_path / "c").left_out == {"removed": 4}
    assert cover in embeddings.removed_of(scored.admin, [cover])
    scored.admin.execute("delete from mill.cover_row")
    scored.admin.execute("delete from mill.removal")
    removal.add(scored.admin, [bytes(sha256).hex()], "", False)
    assert embeddings.export(scored.admin, source, tmp_path / "b").left_out == {"removed": 3}


def test_the_score_that_counts_is_exported(scored: Database, tmp_path: Path) -> None:
    """A withdrawn score has no embedding any more, until it is given again."""
    source = released(scored, tmp_path / "release")
    withdrawn = scored.rows(
        "select distinct s.submission_id, s.batch_id from mill.score s where batch_id = 1"
    )
    scored.admin.execute("select mill.withdraw(%s, 'it lied')", (withdrawn[0][0],))
    done = embeddings.export(scored.admin, source, tmp_path / "a")
    assert done.left_out == {"missing": 4}
    score(scored, IMAGES[::-1])
    done = embeddings.export(scored.admin, source, tmp_path / "b")
    assert done.left_out == {}
    images, _, rows = arrays(tmp_path / "b")
    for image, row in zip(images, rows, strict=True):
        at = row_of(row["SAMPLE_ID"])
        given = IMAGES[::-1] if row["SAMPLE_ID"] >> 14 == 1 else IMAGES
        assert np.array_equal(image, given[at])


def test_database_without_the_model_is_refused(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")
    manifest = json.loads(folder.manifest_text(source))
    manifest["model"]["digest"] = "f" * 64
    describe(source, json.dumps(manifest))
    with pytest.raises(UserError, match="no model model-d1 with the weights ffffffffffff… of the"):
        embeddings.export(scored.admin, source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]


def test_what_is_no_release_is_refused(scored: Database, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no release: it has no _release\.parquet"):
        embeddings.export(scored.admin, tmp_path, tmp_path / "out")
    source = released(scored, tmp_path / "release")
    part = source / "part-00001.parquet"
    body = part.read_bytes()
    part.write_bytes(body[: len(body) // 2])
    with pytest.raises(UserError, match="cannot read"):
        embeddings.export(scored.admin, source, tmp_path / "out")
    part.unlink()
    with pytest.raises(UserError, match=r"lacks part-00001\.parquet"):
        embeddings.export(scored.admin, source, tmp_path / "out")
    describe(source, "{}")
    with pytest.raises(UserError, match="has no release's manifest"):
        embeddings.export(scored.admin, source, tmp_path / "out")
    (source / folder.NAME).write_text("{}")
    with pytest.raises(UserError, match=r"has no release's manifest\.json"):
        embeddings.export(scored.admin, source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]


def test_folder_with_something_in_it_is_refused(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")
    with pytest.raises(UserError, match="is not empty"):
        embeddings.export(scored.admin, source, source)


def test_nothing_kept_is_still_an_export(scored: Database, tmp_path: Path) -> None:
    recipe = Recipe(
        name="none", version=1, description="None", licence="CC0-1.0", model="model-d1",
        min_similarity=1.0, languages=[],
    )  # fmt: skip
    release.build(scored.admin, recipe, tmp_path / "release")
    done = embeddings.export(scored.admin, tmp_path / "release", tmp_path / "out")
    images, texts, rows = arrays(tmp_path / "out")
    assert (done.rows, images.shape, texts.shape, rows) == (0, (0, DIMS), (0, DIMS), [])


def test_interrupted_export_leaves_nothing(scored: Database, tmp_path: Path) -> None:
    source = released(scored, tmp_path / "release")

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embeddings.export(scored.admin, source, tmp_path / "out", progress=interrupt)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["release"]
    assert scored.admin.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_one_state_of_the_database_is_exported(scored: Database, tmp_path: Path) -> None:
    """What is removed while an export runs is in the next."""
    source = released(scored, tmp_path / "release")
    seen = threading.Event()

    def meanwhile(done: int, total: int) -> None:
        if not seen.is_set():
            seen.set()
            with psycopg.connect(scored.dsn, autocommit=True) as other:
                removal.add(other, URLS, "", False)

    done = embeddings.export(scored.admin, source, tmp_path / "a", progress=meanwhile)
    assert (done.rows, done.removals["entries"]) == (N, "none")
    assert embeddings.export(scored.admin, source, tmp_path / "b").left_out == {"removed": N}


def test_embeddings_that_are_not_finite_are_named_and_left_out(
    scored: Database, tmp_path: Path
) -> None:
    """Of a scorer that lies: similarity is a number, its embeddings are none."""
    db = scored
    for n, (column, number) in enumerate((("image", np.nan), ("text", -np.inf))):
        vector = np.full(DIMS, number, np.float16).tobytes()
        db.admin.execute(
            f"update mill.embedding set {column} = %s where batch_id = 1 and n = %s", (vector, n)
        )
    source = released(db, tmp_path / "release")
    done = embeddings.export(db.admin, source, tmp_path / "out")
    images, texts, _ = arrays(tmp_path / "out")
    assert np.isfinite(images).all()
    assert np.isfinite(texts).all()
    assert (done.rows, done.left_out) == (N - 2, {"not_finite": 2})
    with (tmp_path / "out" / "left_out.csv").open() as file:
        assert list(csv.reader(file))[1:] == [
            [str(16384), "not_finite"], [str(16385), "not_finite"],
        ]  # fmt: skip


def test_an_archived_partition_gives_the_same_bytes(scored: Database, tmp_path: Path) -> None:
    """Would catch: of a file the vector, or the digest, of another sample; a removed pair's
    embedding, which the file has still; a pair that counts no more; rows that are in files alone,
    left out."""
    source = released(scored, tmp_path / "release")
    scored.admin.execute(
        "insert into mill.batch (batch_id, bucket, closed_at) overriding system value"
        " values (1000, 0, now())"
    )
    list(archive(scored.admin, to_archive(scored.admin, 0, 999, partial=False), str(tmp_path)))
    removal.add(scored.admin, [URLS[4]], "asked for", False)
    made = {}
    for name in ("archived", "detached", "live"):
        if name == "detached":
            scored.admin.execute("select mill.detach_partition(0, 1)")
        if name == "live":
            assert restore(scored.admin, partitions(scored.admin, 0, 0)[0]) == 0
            scored.admin.execute("delete from mill.archive")
        out = tmp_path / name
        done = embeddings.export(scored.admin, source, out)
        assert done.left_out == {"removed": 1}
        made[name] = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")}
    assert made["archived"] == made["detached"] == made["live"]

"""The next version of a release: what goes, that covers go with it, and what is said of that."""

import hashlib
import hmac
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.archive.detach import detach
from pairmill.ops.archive.generations import archive, to_archive
from pairmill.ops.errors import UserError
from pairmill.ops.release import cover, diff, keep_list, keep_list_apply, update
from pairmill.ops.release.decisions import DUPLICATE
from pairmill.ops.release.folder import manifest_text, read_release, readme
from pairmill.ops.release.update import Wanted
from support.database import Database
from support.made_releases import made_release, rows_of
from support.released import URLS, add_scored_pairs

FIRST = 100 << 14
DEDUPED = {
    "name": "test", "version": 1, "description": "A test", "licence": "CC0-1.0",
    "model_languages": ["en"], "dedupe": {"exact": ["url"]},
}  # fmt: skip
ROWS = 2000


def made(db: Database, out: Path) -> pa.Table:
    """A release of the twelve pairs of a database, of which no more is known than these, and of
    thousands that it knows nothing of."""
    at = dict(db.rows("select url, mill.sample_id(batch_id, n) from mill.pair"))
    ids = [at[url] for url in sorted(URLS, key=at.__getitem__)] + [FIRST + n for n in range(ROWS)]
    urls = sorted(URLS, key=at.__getitem__) + [
        f"http://s{n % 90}.example/{n}.jpg" for n in range(ROWS)
    ]
    image = dict(
        db.rows("select mill.sample_id(batch_id, n), md5 from mill.download where outcome = 0")
    )
    md5 = [image[i].hex if i in image else hashlib.md5(b"%d" % (i // 2)).hexdigest() for i in ids]
    r = np.random.default_rng(1)
    table = pa.table({
        "SAMPLE_ID": ids, "URL": urls, "md5": md5,
        "LANGUAGE": pa.array(["en" if n % 3 else "de" for n in range(len(ids))]),
        "WIDTH": pa.array([640] * len(ids), pa.int32()), "HEIGHT": pa.array([480] * len(ids), pa.int32()),
        "punsafe": pa.array(r.choice([0.01, 0.3, 0.97], len(ids)), pa.float32()),
    })  # fmt: skip
    languages = {name: table["LANGUAGE"].to_pylist().count(name) for name in ("de", "en")}
    made_release(out, table, 1500, model={"name": "model-d1", "pretrained": "", "digest": "d1"},
                 kept_by_language=languages)  # fmt: skip
    return table


def ids_of(folder: Path) -> list[int]:
    found: list[int] = pq.read_table(folder)["SAMPLE_ID"].to_pylist()
    return found


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_an_update_drops_what_must_go_and_covers_and_nothing_else(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a removed image that stays under another URL, or in place of a duplicate that
    no record names any more, a row of withdrawn work, covers
    that are not kept or differ from run to run, and counts that tell who was removed."""
    add_scored_pairs(db)
    table = made(db, tmp_path / "v1")
    rows = {row["SAMPLE_ID"]: row for row in table.to_pylist()}
    removed = [FIRST + n for n in range(0, 60, 5)]
    removal.add(db.admin, [rows[i]["URL"] for i in removed[:-1]], "asked", False)
    removal.add(db.admin, [rows[removed[-1]]["md5"]], "asked", False)
    removal.add(db.admin, [URLS[0]], "asked", False)  # a pair that the database knows
    pair = {url: i for i, row in rows.items() for url in [row["URL"]]}
    db.admin.execute(
        "insert into mill.withdrawn (submission_id, reason)"
        " select distinct d.submission_id, '' from mill.download d"
        " join mill.pair p using (batch_id, n) where p.url = %s", (URLS[1],),
    )  # fmt: skip
    withdrawn = {pair[url] for url in URLS[:6]} - {pair[URLS[0]]}
    old = tmp_path / "v1"
    stayed = FIRST + 1999
    _record_duplicate(db, old, pair[URLS[0]], stayed)
    images = {rows[i]["md5"] for i in (*removed, stayed)}
    must_go = {i for i, row in rows.items() if row["md5"] in images} | {pair[URLS[0]]}
    assert len(must_go) == 2 * (12 + 1) + 1
    wanted = Wanted(covers=6, min_removals=27)

    def updated(name: str | None, **values: Any) -> update.Update:
        out = tmp_path / name if name else None
        return update.update(db.admin, old, out, values.pop("wanted", wanted), **values)

    with pytest.raises(UserError, match="a batch has 28 at least"):
        updated("small", wanted=Wanted(covers=6, min_removals=28))
    with pytest.raises(UserError, match="at most; --covers"):
        updated("many", wanted=Wanted(covers=900))
    unrecorded = made_release(
        tmp_path / "unrecorded", rows_of([FIRST]), recipe=DEDUPED, layout="pairmill"
    )
    with pytest.raises(UserError, match="no record of it"):
        update.update(db.admin, unrecorded, tmp_path / "next", wanted)
    with pytest.raises(UserError, match="unrecorded"):  # and not after the covers are noted
        update.update(db.admin, old, unrecorded, Wanted(covers=1))
    assert db.value("select count(*) from mill.cover_row") == 0
    shutil.rmtree(unrecorded)
    planned = updated("planned", dry_run=True)
    assert db.value("select count(*) from mill.cover_row") == 0
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(update, "_write", interrupted)
        updated("v2")  # Ctrl-C when the covers are noted, and the folder is not there
    assert not [path for path in tmp_path.iterdir() if path.name != "v1"]
    done = updated("v2")
    assert (done.removed, done.withdrawn, done.new_covers) == (27, 5, 0)
    assert planned.covers == done.covers >= 6 * 27
    gone = {*rows} - {*ids_of(tmp_path / "v2")}
    covers = {i for (i,) in db.rows("select sample_id from mill.cover_row")}
    assert gone == must_go | withdrawn | covers
    assert not covers & (must_go | withdrawn)
    kept = table.filter(pa.array([i not in gone for i in rows]))
    assert pq.read_table(tmp_path / "v2").equals(kept)
    assert len(db.rows("select 1 from mill.cover_draw")) == 1
    updated("again")
    assert digests(tmp_path / "again") == digests(tmp_path / "v2")

    manifest = json.loads(manifest_text(tmp_path / "v2"))
    assert (manifest["version"], manifest["kept"]) == ("2.0.0", len(kept))
    assert manifest["candidates"] == manifest["kept"] + sum(manifest["excluded"].values())
    assert manifest["excluded"]["removed"] == len(gone)
    assert sum(manifest["kept_by_language"].values()) == len(kept)
    assert manifest["derived_from"]["lineage"] == keep_list.lineage(old)
    assert manifest["removals"] == cover.public_version(db.admin)
    text = manifest_text(tmp_path / "v2").decode() + readme(tmp_path / "v2")
    assert "cover" not in text.lower()
    for entry in manifest["files"]:
        body = (tmp_path / "v2" / entry["name"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(body).hexdigest()

    found = diff.diff(old, tmp_path / "v2", tmp_path / "ids")
    assert (found.only_in_a, found.only_in_b, found.changed) == (len(gone), 0, 0)
    assert found.reasons_a == {"gone": len(gone)}
    assert {*pq.read_table(tmp_path / "ids" / "only_in_a.parquet")["SAMPLE_ID"].to_pylist()} == gone

    keep_list.write(tmp_path / "v2", tmp_path / "keep.npy")
    keep_list_apply.apply(old, keep_list.read(tmp_path / "keep.npy"))
    assert ids_of(old) == ids_of(tmp_path / "v2")
    old = tmp_path / "v2"
    with pytest.raises(UserError, match=r"nothing of .* must go"):
        updated("v3")
    removal.add(
        db.admin, [rows[i]["URL"] for i in sorted(rows.keys() - gone)[-20:]], "asked", False
    )
    with pytest.raises(UserError, match="days are to lie between"):
        updated("v3", wanted=Wanted(covers=6, min_removals=1))
    assert updated("v3", wanted=Wanted(covers=6, urgent=True)).removed >= 20
    assert json.loads(manifest_text(tmp_path / "v3"))["derived_from"]["lineage"][1:] == (
        keep_list.lineage(tmp_path / "v1")[1:] or keep_list.lineage(old)[1:]
    )


def test_an_update_finds_what_is_detached(db: Database, tmp_path: Path) -> None:
    """Would catch: a copy of a removed image, or a row of withdrawn work, that stays in the next
    version since the database has no rows of it any more."""
    add_scored_pairs(db)
    db.admin.execute("select mill.ensure_partitions(1000)")
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, closed_at) overriding system value"
        " values (1000, 0, now())"
    )
    first = dict(db.rows("select url, md5 from mill.pair join mill.download using (batch_id, n)"))
    table = made(db, tmp_path / "all")
    # of the removed pair's image the release has a copy alone, and the other pairs
    md5 = [first[URLS[0]].hex if i == FIRST + 7 else row for i, row in
           zip(table["SAMPLE_ID"].to_pylist(), table["md5"].to_pylist(), strict=True)]  # fmt: skip
    table = table.set_column(2, "md5", [md5]).filter(pc.not_equal(table["URL"], URLS[0]))
    old = made_release(tmp_path / "v1", table, 1500, kept_by_language={"en": len(table)})
    removal.add(db.admin, [URLS[0]], "asked", False)
    query = (
        "insert into mill.withdrawn (submission_id, reason) select s.submission_id, ''"
        " from mill.score s join mill.pair p using (batch_id, n) where p.url = %s"
    )
    db.admin.execute(query, (URLS[1],))

    def planned() -> tuple[int, int]:
        done = update.update(db.admin, old, None, Wanted(covers=0, urgent=True), dry_run=True)
        return done.removed, done.withdrawn

    assert planned() == (1, 1)
    (written,) = archive(db.admin, to_archive(db.admin, 0, 999, partial=False), str(tmp_path / "a"))
    detach(db.admin, written)
    assert planned() == (1, 1)
    (file,) = (tmp_path / "a").rglob("download.parquet")
    file.unlink()
    with pytest.raises(UserError, match="cannot be read, and alone says"):
        planned()


def _record_duplicate(db: Database, folder: Path, sample: int, of: int) -> None:
    """A record of a release by which a sample was left out as the duplicate of another one."""
    db.admin.execute(
        "with r as (insert into mill.release (name, version, recipe, manifest_sha256, candidates,"
        " kept, excluded, unfinished, words, methods)"
        " values ('test', 1, '{}', %s, 2, 1, '{}', '{}', '{kept,duplicate}', '{url}') returning *)"
        " insert into mill.release_batch (batch_id, release_id, decisions, duplicates)"
        " select %s, r.release_id, '', %s from r",
        (
            keep_list.lineage(folder)[0], sample >> 14,
            np.array([(sample & 16383, 0, of)], DUPLICATE).tobytes(),
        ),
    )  # fmt: skip


def test_a_diff_says_why_as_far_as_the_record_may(db: Database, tmp_path: Path) -> None:
    """Would catch: removed, withdrawn and cover rows told apart, or a reason of another row."""
    a, b = [16384 + n for n in range(900)], [16384 + n for n in range(800, 1000)]
    old = made_release(tmp_path / "a", rows_of(a), 500)
    new = made_release(tmp_path / "b", rows_of(b), 500, name="b")
    words = ["kept", "similarity", "removed", "language", "withdrawn"]
    # 0: withdrawn before; 150 too dissimilar, 249 removed, 351 withdrawn, 50 of another language
    decided = bytes([2] * 150 + [3] * 249 + [0] * 201 + [5] * 150 + [4] * 50 + [1] * 200)
    db.admin.execute(
        "with r as (insert into mill.release (name, version, recipe, manifest_sha256, candidates,"
        " kept, excluded, unfinished, words)"
        " values ('b', 1, '{}', %s, 2, 1, '{}', '{}', %s) returning release_id)"
        " insert into mill.release_batch (batch_id, release_id, decisions)"
        " select 1, release_id, %s from r",
        (keep_list.lineage(new)[0], words, decided),
    )
    found = diff.diff(old, new, connection=db.admin)
    assert found.reasons_a == {"similarity": 150, "gone": 600, "other": 50}
    assert found.reasons_b == {"not recorded": 100}


def interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_the_published_version_of_the_list_confirms_no_guess(db: Database) -> None:
    """Would catch: a plain digest of the list, by which a guessed entry is tried, an exact count,
    and a key that two databases share or that a researcher may read."""
    none = cover.public_version(db.admin)
    removal.add(db.admin, ["http://a.example/1"], "", False)
    one = cover.public_version(db.admin)
    assert none["hmac"] != one["hmac"]
    assert (none["entries"], one["entries"]) == ("none", "under 100")
    key = cover.setting(db.admin).key
    signed = hmac.new(key, b"removals\nhttp://a.example/1\n", hashlib.sha256).hexdigest()
    assert one["hmac"] == signed
    assert len(key) == 32
    shown = db.rows(
        "select v.relname from pg_depend d join pg_rewrite r on r.oid = d.objid"
        " join pg_class v on v.oid = r.ev_class"
        " where d.refobjid in ('mill.cover_row'::regclass, 'mill.cover_setting'::regclass)"
    )
    assert shown == []


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "none"), (99, "under 100"), (100, "100 or more"), (2_199_999, "2,000,000 or more")],
)
def test_counts_are_coarse(count: int, said: str) -> None:
    assert cover.coarse(count) == said


def test_a_damaged_release_is_not_updated(db: Database, tmp_path: Path) -> None:
    add_scored_pairs(db)
    made(db, tmp_path / "v1")
    part = read_release(tmp_path / "v1").parts[1]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not the file"):
        update.update(db.admin, tmp_path / "v1", tmp_path / "v2")

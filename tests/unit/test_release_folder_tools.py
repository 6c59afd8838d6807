"""Keep-lists: what they drop from each kind of copy, when they are interrupted, and what they refuse."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import folder, keep_list, keep_list_apply, keep_list_shards
from pairmill.ops.release.keep_list_ids import IDS
from pairmill.ops.vectors import index
from support.made_releases import (
    datacomp,
    keys_in_tar,
    made_release,
    made_tar,
    rows_of,
    vectors,
    whole,
)

OLD = [16384 + n for n in range(10)]
SMALL = [7, 9, 12, 100, 101, 300, 301, 2000]  # a float16 holds them
GONE = {9, 300, 16387, 16389}


def listed(tmp_path: Path, ids: list[int], name: str = "test") -> keep_list.KeepList:
    """The keep-list of a release of those ids that are not GONE."""
    kept = [i for i in ids if i not in GONE]
    source = made_release(tmp_path / "new", rows_of(kept), name=name)
    keep_list.write(source, tmp_path / "keep.npy", made_by="us")
    return keep_list.read(tmp_path / "keep.npy")


def _release(where: Path) -> Callable[[], list[int]]:
    made_release(where, rows_of(OLD))
    return lambda: pq.read_table(where)["SAMPLE_ID"].to_pylist()


def _datacomp(where: Path) -> Callable[[], list[int]]:
    """Parquet with uids, and an .npz of the same stem; no manifest."""
    where.mkdir()
    for number, ids in enumerate((SMALL[:5], SMALL[5:])):
        pq.write_table(datacomp(rows_of(ids)), where / f"{number:032x}.parquet")
        arrays = {"l14_img": vectors(ids), "l14_txt": vectors(ids)}
        save: Any = np.savez_compressed if number else np.savez
        save(where / f"{number:032x}.npz", **arrays)

    def found() -> list[int]:
        ids = []
        for path in sorted(where.glob("*.parquet")):
            rows = [int(uid, 16) for uid in pq.read_table(path)["uid"].to_pylist()]
            arrays = np.load(path.with_suffix(".npz"))
            for name in ("l14_img", "l14_txt"):
                assert np.array_equal(arrays[name], vectors(rows))
            ids += rows
        return ids

    return found


def _clip_retrieval(where: Path) -> Callable[[], list[int]]:
    for kind in ("img_emb", "text_emb", "metadata"):
        (where / kind).mkdir(parents=True)
    files = []
    for number, ids in enumerate((SMALL[:3], SMALL[3:])):
        images, texts = (where / f"{k}_emb" / f"{k}_emb_{number}.npy" for k in ("img", "text"))
        np.save(images, vectors(ids))
        np.save(texts, vectors(ids))
        table = where / "metadata" / f"metadata_{number}.parquet"
        rows = rows_of(ids)
        names = {"URL": "url", "TEXT": "caption"}
        pq.write_table(rows.rename_columns([names.get(n, n) for n in rows.column_names]), table)
        files += [{"name": str(p.relative_to(where)), "rows": len(ids), "bytes": 0, "sha256": ""}
                  for p in (images, texts, table)]  # fmt: skip
    release = {"name": "test", "version": 1, "rows": 9, "manifest_sha256": "0"}
    manifest = {"format": "clip-retrieval", "dims": 4, "rows": len(SMALL), "files": files,
                "left_out": {"missing": 1}, "release": release, "model": {}}  # fmt: skip
    (where / "manifest.json").write_text(json.dumps(manifest))

    def found() -> list[int]:
        manifest = json.loads((where / "manifest.json").read_text())
        ids: list[int] = []
        for number in range(2):
            rows = pq.read_table(where / "metadata" / f"metadata_{number}.parquet")
            some = rows["SAMPLE_ID"].to_pylist()
            for kind in ("img", "text"):
                array = np.load(where / f"{kind}_emb" / f"{kind}_emb_{number}.npy")
                assert np.array_equal(array, vectors(some))
            ids += some
        assert manifest["rows"] == len(ids)
        assert manifest["rows"] + sum(manifest["left_out"].values()) == 9
        for entry in manifest["files"] if len(ids) < len(SMALL) else []:
            body = (where / entry["name"]).read_bytes()
            assert entry["sha256"] == hashlib.sha256(body).hexdigest()
        return ids

    return found


def _tar(where: Path) -> Callable[[], list[int]]:
    """Tars alone: the ids are in JSON, of one sample as a uid; long names have headers of their own."""
    where.mkdir()
    key = "k" * 120
    for number, ids in enumerate((SMALL[:5], SMALL[5:])):
        metas = [{"SAMPLE_ID": i} if i != 12 else {"uid": f"{i:032x}"} for i in ids]
        samples = [(f"{key}{i}", meta) for i, meta in zip(ids, metas, strict=True)]
        made_tar(where / f"{number:05}.tar", samples)

    def found() -> list[int]:
        tars = [str(path) for path in sorted(where.glob("*.tar"))]
        read = list(webdataset.WebDataset(tars, shardshuffle=False))
        for path in tars:
            assert Path(path).stat().st_size % 10240 == 0
        assert all(sample["jpg"].decode() == sample["__key__"] for sample in read)
        return [int(sample["__key__"].removeprefix(key)) for sample in read]

    return found


def _shard_table(ids: list[int], keys: list[str], **more: Any) -> pa.Table:
    failed = [i == 100 for i in ids]
    return pa.table({
        "SAMPLE_ID": ids, "key": keys, "url": [f"http://a/{i}" for i in ids],
        "status": ["failed_to_download" if f else "success" for f in failed],
        "error_message": ["http_error" if f else None for f in failed], **more,
    })  # fmt: skip


def _stats(path: Path, ids: list[int]) -> None:
    path.write_text(json.dumps({
        "count": len(ids), "successes": len(ids) - (100 in ids), "failed_to_download": int(100 in ids),
        "failed_to_resize": 0, "duration": 3.5, "status_dict": {},
    }))  # fmt: skip


def _stats_hold(where: Path, ids: list[int]) -> None:
    found = [json.loads(path.read_text()) for path in sorted(where.glob("*_stats.json"))]
    assert sum(each["count"] for each in found) == len(ids)
    assert sum(each["failed_to_download"] for each in found) == ids.count(100)
    assert all(each["duration"] == 3.5 for each in found)


def _img2dataset(where: Path) -> Callable[[], list[int]]:
    """A tar with counted keys and no ids: those are in the Parquet file. 12345: its keys look like ids."""
    where.mkdir()
    for number, ids in ((12345, SMALL[:5]), (12346, SMALL[5:])):
        keys = [f"{number}{n:04}" for n in range(len(ids))]
        samples = [
            (key, {"url": "http://a/"}) for key, i in zip(keys, ids, strict=True) if i != 100
        ]
        made_tar(where / f"{number}.tar", samples)
        pq.write_table(_shard_table(ids, keys), where / f"{number}.parquet")
        _stats(where / f"{number}_stats.json", ids)

    def found() -> list[int]:
        ids: list[int] = []
        for number in (12345, 12346):
            rows = pq.read_table(where / f"{number}.parquet").to_pylist()
            assert keys_in_tar(where / f"{number}.tar") == [
                row["key"] for row in rows if row["status"] == "success"
            ]
            ids += [row["SAMPLE_ID"] for row in rows]
        _stats_hold(where, ids)
        return ids

    return found


def _files(where: Path) -> Callable[[], list[int]]:
    """img2dataset's folders of files."""
    keys = [f"00000{n:04}" for n in range(len(SMALL))]
    (where / "00000").mkdir(parents=True)
    for key in keys:
        for ending in ("jpg", "json", "txt"):
            (where / "00000" / f"{key}.{ending}").write_text(key)
    pq.write_table(_shard_table(SMALL, keys), where / "00000.parquet")
    _stats(where / "00000_stats.json", SMALL)

    def found() -> list[int]:
        rows = pq.read_table(where / "00000.parquet").to_pylist()
        names = {path.name.partition(".")[0] for path in (where / "00000").iterdir()}
        assert names == {row["key"] for row in rows}
        ids = [row["SAMPLE_ID"] for row in rows]
        _stats_hold(where, ids)
        return ids

    return found


def _column(where: Path) -> Callable[[], list[int]]:
    """Images as a column of Parquet, in row groups that a reader holds at once."""
    where.mkdir()
    keys = [str(i) for i in SMALL]
    table = _shard_table(SMALL, keys, jpg=[bytes([i % 256]) * 99 for i in SMALL])
    pq.write_table(table, where / "00000.parquet", row_group_size=3, compression="snappy")

    def found() -> list[int]:
        file = pq.ParquetFile(where / "00000.parquet")
        group = file.metadata.row_group(0)
        assert (group.num_rows, group.column(0).compression) == (3, "SNAPPY")
        rows = file.read().to_pylist()
        assert all(row["jpg"] == bytes([row["SAMPLE_ID"] % 256]) * 99 for row in rows)
        return [row["SAMPLE_ID"] for row in rows]

    return found


COPIES = {
    "release": _release, "datacomp": _datacomp, "clip-retrieval": _clip_retrieval, "tar": _tar,
    "img2dataset": _img2dataset, "files": _files, "column": _column,
}  # fmt: skip


def digests(where: Path) -> dict[str, str]:
    """Every file below a folder; a release's manifest by its text, which knows of no interruption."""
    return {
        str(p.relative_to(where)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(where.rglob("*")) if p.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("kind", COPIES)
def test_every_kind_of_copy_loses_what_the_list_does_not_name(tmp_path: Path, kind: str) -> None:
    """Would catch: an array that is out of step with its rows, statistics or a manifest of before,
    a sample whose id was taken from its counted key, and a second run that changes something."""
    found = COPIES[kind](tmp_path / "copy")
    before = found()
    keep = listed(tmp_path, before)
    kept = [i for i in before if i not in GONE]
    untouched = digests(tmp_path / "copy")
    planned = keep_list_apply.apply(tmp_path / "copy", keep, dry_run=True)
    assert digests(tmp_path / "copy") == untouched
    done = keep_list_apply.apply(tmp_path / "copy", keep)
    assert planned == done
    assert found() == kept
    assert (done.dropped, done.left_alone) == (2, [])
    after = digests(tmp_path / "copy")
    assert keep_list_apply.apply(tmp_path / "copy", keep).dropped == 0
    assert digests(tmp_path / "copy") == after
    if kind == "release":
        assert whole(tmp_path / "copy") == len(kept)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("kind", COPIES)
def test_an_interrupted_run_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, killed: bool
) -> None:
    """Ctrl-C, or a kill, at every step that changes the folder. Would catch: rows without their
    arrays, a manifest that is never brought up to date, and hidden leftovers."""
    done = tmp_path / "done"
    before = COPIES[kind](done)()
    keep = listed(tmp_path, before)
    shutil.copytree(done, tmp_path / "source")
    keep_list_apply.apply(done, keep)
    wanted = digests(done)
    steps, fired = 0, [True]
    while fired:
        steps += 1
        where = tmp_path / f"copy-{steps}"
        shutil.copytree(tmp_path / "source", where)
        with monkeypatch.context() as patched:
            fired = _interrupt(patched, steps, killed)
            with suppress(KeyboardInterrupt):
                keep_list_apply.apply(where, keep)
        left = [path for ending in (".kept", ".keeping") for path in where.glob(f".*{ending}")]
        assert killed or not left
        keep_list_apply.apply(where, keep)
        assert digests(where) == wanted
        shutil.rmtree(where)
    assert steps > 2


def _interrupt(patched: pytest.MonkeyPatch, at: int, killed: bool) -> list[bool]:
    """Interrupt the at-th step that changes a folder; of a kill, nothing is done after it. The
    list is empty while that has not happened."""
    fired: list[bool] = []
    count = iter(range(1, 1000))

    def step(name: str, real: Any) -> Any:
        def interrupted(self: Path, *arguments: Any) -> Any:
            if next(count) == at or (killed and fired):
                fired.append(True)
                raise KeyboardInterrupt(name)
            return real(self, *arguments)

        return interrupted

    for name in ("replace", "rename", "unlink"):
        patched.setattr(Path, name, step(name, getattr(Path, name)))
    if killed:
        patched.setattr(keep_list_shards, "_recover", lambda folder: None)
    return fired


def test_an_index_loses_them_and_their_vectors(tmp_path: Path) -> None:
    """Would catch: a row that a query still finds, and a vector that stays in the file."""
    found = _clip_retrieval(tmp_path / "export")
    index.build(tmp_path / "export", tmp_path / "index", queries=0)
    listed(tmp_path, found())
    for dropped in (2, 0):
        told = run("apply", tmp_path / "keep.npy", tmp_path / "index", "--yes", "--json")
        assert json.loads(told)["folders"][0]["dropped"] == dropped
        assert set(index.sample_ids(tmp_path / "index")) == {*SMALL} - GONE
    assert index.read_info(tmp_path / "index").vectors == len({*SMALL} - GONE)


def run(*arguments: Any, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["release", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output if not code else str(done.exception)


def test_the_commands(tmp_path: Path) -> None:
    """--out leaves the copy as it is; a list of another or an older release, or one that names
    nothing of a folder, changes nothing."""
    kept = [i for i in OLD if i not in GONE]
    new = made_release(tmp_path / "new", rows_of(kept))
    told = json.loads(run("keep-list", new, "--out", tmp_path / "k.npy", "--json"))
    assert (told["rows"], told["name"], told["version"]) == (8, "test", "1.0.0")
    old = made_release(tmp_path / "old", rows_of(OLD))
    before = digests(old)
    run("apply", tmp_path / "k.npy", old, "--out", tmp_path / "out")
    assert digests(old) == before
    assert pq.read_table(tmp_path / "out")["SAMPLE_ID"].to_pylist() == kept
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "out").iterdir())
    manifest = json.loads(folder.manifest_text(tmp_path / "out"))
    assert manifest["version"] == "2.0.0"
    assert manifest["derived_from"]["lineage"] == keep_list.lineage(old)
    assert manifest["candidates"] == manifest["kept"] + sum(manifest["excluded"].values())
    assert "not confirmed" in run("apply", tmp_path / "k.npy", old, code=1)
    other = made_release(tmp_path / "other", rows_of(OLD), name="other")
    assert "of other" in run("apply", tmp_path / "k.npy", other, "--yes", code=1)
    newer = made_release(tmp_path / "newer", rows_of(OLD), version="3.0.0")
    assert "of version 3.0.0" in run("apply", tmp_path / "k.npy", newer, "--yes", code=1)
    far = made_release(tmp_path / "far", rows_of([1, 2, 3]))
    assert "none of the 3 rows" in run("apply", tmp_path / "k.npy", far, "--yes", code=1)
    assert digests(old) == before
    assert "8 of 8" not in run("apply", tmp_path / "k.npy", old, "--dry-run")
    run("apply", tmp_path / "k.npy", old, "--yes")
    assert whole(old) == 8


def _damage_list(where: Path) -> None:
    path = where / "keep.npy"
    path.write_bytes(path.read_bytes()[:-16])


def _no_side_data(where: Path) -> None:
    (where / "keep.npy.json").unlink()


def _unsorted(where: Path) -> None:
    ids = np.zeros(3, IDS)
    ids["f1"] = [3, 2, 5]
    np.save(where / "keep.npy", ids)
    about = json.loads((where / "keep.npy.json").read_text())
    about["sha256"] = hashlib.sha256((where / "keep.npy").read_bytes()).hexdigest()
    (where / "keep.npy.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_damage_list, "is damaged"), (_no_side_data, "is missing"), (_unsorted, "not sorted")],
)
def test_a_list_that_is_not_whole_drops_nothing(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    """Would catch: half a list, by which half of everything goes."""
    listed(tmp_path, OLD)
    damage(tmp_path)
    with pytest.raises(UserError, match=said):
        keep_list.read(tmp_path / "keep.npy")


def _no_ids(where: Path) -> None:
    pq.write_table(pa.table({"url": ["a"]}), where / "0.parquet")


def _null_id(where: Path) -> None:
    pq.write_table(pa.table({"SAMPLE_ID": [1, None]}), where / "0.parquet")


def _bad_uid(where: Path) -> None:
    pq.write_table(pa.table({"uid": ["f" * 32, "x" * 32]}), where / "0.parquet")


def _counted_keys(where: Path) -> None:
    made_tar(where / "0.tar", [("000000001", {"url": "a"})])


def _lone_npz(where: Path) -> None:
    np.savez(where / "0.npz", a=vectors([1]))


def _array_of_others(where: Path) -> None:
    pq.write_table(rows_of([9, 12, 13]), where / "0.parquet")
    np.savez(where / "0.npz", a=vectors([9, 12]))


def _cut_tar(where: Path) -> None:
    made_tar(where / "0.tar", [(f"k{i}", {"SAMPLE_ID": i}) for i in (7, 9)])
    path = where / "0.tar"
    path.write_bytes(path.read_bytes()[:5200])


def _broken_header(where: Path) -> None:
    made_tar(where / "0.tar", [(f"k{i}", {"SAMPLE_ID": i}) for i in (7, 9)])
    body = bytearray((where / "0.tar").read_bytes())
    with tarfile.open(where / "0.tar") as tar:
        at = tar.getmember("k9.jpg").offset
    body[at : at + 8] = b"\xff" * 8
    (where / "0.tar").write_bytes(body)


def _half_fetched(where: Path) -> None:
    pq.write_table(rows_of([9, 12]), where / "0.parquet")
    (where / ".00001.whole").mkdir()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (_no_ids, "has no column SAMPLE_ID or uid"), (_null_id, "no SAMPLE_ID and no uid: a null"),
        (_bad_uid, "no SAMPLE_ID and no uid"), (_counted_keys, "--keys-are-ids"),
        (_lone_npz, "no Parquet file beside"), (_array_of_others, "does not go with"),
        (_cut_tar, "damaged"), (_broken_header, "damaged after byte"),
        (_half_fetched, "pairmill fetch"), (lambda where: None, "no Parquet file and no tar"),
    ],
)  # fmt: skip
def test_a_copy_that_cannot_be_judged_is_refused(
    tmp_path: Path, bad: Callable[[Path], None], said: str
) -> None:
    """Would catch: rows that stay because nothing is known of them, or samples behind a damaged
    header that are lost without a word."""
    (tmp_path / "copy").mkdir()
    bad(tmp_path / "copy")
    before = digests(tmp_path / "copy")
    keep = listed(tmp_path, SMALL)
    with pytest.raises(UserError, match=said):
        keep_list_apply.apply(tmp_path / "copy", keep)
    assert digests(tmp_path / "copy") == before

"""The archive: generations, what makes one out of date, faults, and the life of a detached partition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.archive import catalogue, generations, store
from pairmill.ops.archive.catalogue import Partition, current, partitions
from pairmill.ops.archive.detach import detach, verify
from pairmill.ops.archive.restore import restore
from pairmill.ops.archive.search import find_in_detached
from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome
from support.database import Database, key, say_migrated
from support.line import here, sentence
from support.released import URLS, add_scored_pairs


@pytest.fixture
def finished(db: Database) -> Database:
    """12 pairs in batch 0, downloaded and scored, and a later batch: the partition is full."""
    add_scored_pairs(db)
    db.admin.execute("select mill.ensure_partitions(1000)")
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, closed_at) overriding system value"
        " values (1000, 0, now())"
    )
    return db


def archived(db: Database, root: Path | str, *, partial: bool = False) -> list[Partition]:
    chosen = generations.to_archive(db.admin, 0, 999, partial=partial)
    return list(generations.archive(db.admin, chosen, str(root)))


def first(db: Database) -> Partition:
    return partitions(db.admin, 0, 0)[0]


def withdraw(kind: str) -> Callable[[Database], None]:
    def one(db: Database) -> None:
        query = (
            "select max(submission_id) from mill.submission join mill.task using (task_id)"
            " where kind = %s"
        )
        db.admin.execute("select mill.withdraw(%s, 'wrong')", (db.value(query, kind),))

    return one


def retry(db: Database) -> None:
    db.admin.execute("update mill.setting set url_retry_seconds = 0")
    db.admin.execute("select * from mill.retry_outcomes(null, 0, 10, true)")
    db.download(Outcome.TIMEOUT)


def tag(db: Database) -> None:
    db.add_tagger()
    db.admin.execute(
        "insert into mill.task (kind, batch_id, model_id) select 'score', 0, model_id"
        " from mill.model where kind = 'head' on conflict do nothing"
    )
    claim = db.claim("score", digest="t1")
    assert claim
    queue, _ = db.queue("score")
    rows = [
        (claim.lease_id, 0, 2, n, None, 0.5) for n, *_ in queue.embeddings(claim.lease_id, 0, 99)
    ]
    queue.copy_tags(rows)
    queue.submit_score(claim.lease_id, 0, 0, len(rows))
    queue.complete(claim.lease_id)
    db.accept_all()


def test_what_changes_rows_makes_a_generation_out_of_date(
    finished: Database, tmp_path: Path
) -> None:
    """Would catch: a way of change that the state does not show, so that a release would be built
    of rows that count no more, or lack some; and files that are edited."""
    db = finished
    (written,) = archived(db, tmp_path)
    changes = [retry, tag, withdraw("score"), withdraw("download"), withdraw("extract")]
    for number, change in enumerate(changes, 2):
        assert current(db.admin) == [written.facts()]
        assert archived(db, tmp_path, partial=True) == []  # nothing to do
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
        change(db)
        assert current(db.admin) == [], change
        (written,) = archived(db, tmp_path, partial=True)
        assert written.folder == str(tmp_path / "batches-0-999" / f"g{number:04}")
        assert {path: path.read_bytes() for path in before} == before


def test_a_removal_leaves_files_current_and_asks_for_new_ones(
    finished: Database, tmp_path: Path
) -> None:
    """Would catch: embeddings of removed images kept in files for good; a release that cannot be
    built since somebody asked for a removal."""
    db = finished
    (written,) = archived(db, tmp_path)
    removal.add(db.admin, [URLS[0]], "asked for", False)
    assert current(db.admin) == [written.facts()]
    with pytest.raises(UserError, match="not archived as it is now"):
        detach(db.admin, first(db))
    (again,) = archived(db, tmp_path)
    embeddings = [
        pq.read_metadata(p.facts().path("embedding", 1)).num_rows for p in (written, again)
    ]
    assert embeddings == [6, 5]
    assert [row["folder"] for row in generations.prune(db.admin, dry_run=True)] == [written.folder]
    assert [row["generation"] for row in generations.prune(db.admin, dry_run=False)] == [1]
    assert [path.name for path in (tmp_path / "batches-0-999").iterdir()] == ["g0002"]
    verify(db.admin, first(db), rows=True)


def open_batch(db: Database) -> None:
    db.admin.execute("update mill.batch set closed_at = null where batch_id = 0")


def last_of_all(db: Database) -> None:
    db.admin.execute("delete from mill.batch where batch_id = 1000")


def open_task(db: Database) -> None:
    db.add_model("d2")  # the thumbnails are there still


def test_what_is_not_finished_is_archived_only_as_partial(
    finished: Database, tmp_path: Path
) -> None:
    """Would catch: a partition that pairs or scores will still come into, dropped."""
    db = finished
    for change in (open_batch, last_of_all, open_task):
        with db.admin.transaction(force_rollback=True):
            change(db)
            assert generations.to_archive(db.admin, 0, 999, partial=False) == [], change
            assert [
                p.first_batch for p in generations.to_archive(db.admin, 0, 999, partial=True)
            ] == [0]
    open_task(db)
    (written,) = archived(db, tmp_path, partial=True)
    with pytest.raises(UserError, match="not finished"):
        detach(db.admin, written)


@pytest.mark.parametrize(
    ("at", "root"), [("export", "{}"), ("write_manifest", "memory://{}"), ("index", "{}")]
)
def test_an_interrupted_archive_leaves_nothing_and_goes_on(
    finished: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, root: str
) -> None:
    """Would catch: a folder without all of its files in the catalogue; a half-written one that is
    in the way; files whose images are not in the index of hashes."""
    db = finished

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "index":
            db.admin.execute("alter table mill.image_key rename to image_keys")
        else:
            patch.setattr(generations if at == "export" else store, at, dies)
        with pytest.raises((KeyboardInterrupt, psycopg.Error)):
            archived(db, root.format(tmp_path))
    if at == "index":
        db.admin.execute("alter table mill.image_keys rename to image_key")
    assert db.rows("select from mill.archive") == []
    # what a process leaves that was killed
    half = tmp_path / "batches-0-999" / ".g0001.unfinished"
    half.mkdir(parents=True, exist_ok=True)
    (half / "pair.parquet").write_bytes(b"PAR1")
    (written,) = archived(db, root.format(tmp_path))
    verify(db.admin, written, rows=True)
    keys = "select count(distinct sample_id), count(*) from mill.image_key"
    assert db.rows(keys) == [(6, 12)]  # md5 and sha256
    detach(db.admin, written)
    assert restore(db.admin, first(db)) == 0


def test_another_databases_archive_is_left_alone(finished: Database, tmp_path: Path) -> None:
    """Would catch: a second database with the same --to, whose first generation takes the place of
    the only copy of what another has detached."""
    db = finished
    folder = tmp_path / "batches-0-999" / "g0001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"database": "1/2"}', "utf-8")
    for root in (str(tmp_path), f"file://{tmp_path}"):
        with pytest.raises(UserError, match="g0001 is the archive of another database"):
            archived(db, root)
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert db.rows("select from mill.archive") == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("pair.parquet", cut, "is damaged"),
    ("score-1.parquet", flip, "is damaged"),
    ("manifest.json", flip, "is damaged"),
    ("download.parquet", Path.unlink, "is missing"),
]


def test_a_damaged_file_is_told_and_written_anew(finished: Database, tmp_path: Path) -> None:
    """Would catch: rows dropped although their files cannot be read, or brought back in part."""
    db = finished
    for name, damage, said in DAMAGES:
        (written,) = archived(db, tmp_path)
        damage(Path(written.folder or "") / name)
        with pytest.raises(UserError, match=said):
            detach(db.admin, written)
        assert db.value("select count(*) from mill.pair") == 12
        assert current(db.admin) == []
    (again,) = archived(db, tmp_path)
    detach(db.admin, again)
    for name, damage, said in DAMAGES:
        path = Path(again.folder or "") / name
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(UserError, match=said):
            restore(db.admin, first(db))
        assert db.rows("select from mill.pair") == []
        path.write_bytes(whole)
    assert restore(db.admin, first(db)) == 0


def test_rows_that_differ_are_not_dropped(finished: Database, tmp_path: Path) -> None:
    """Would catch: a comparison of digests of files alone: these are whole, and a row is other."""
    db = finished
    (written,) = archived(db, tmp_path)
    db.admin.execute("update mill.score set similarity = similarity + 1e-7::real")
    with pytest.raises(
        UserError, match=r"score-1.parquet has other rows of batch 0 than the database"
    ):
        detach(db.admin, written)
    assert db.value("select count(*) from mill.score") == 6
    (again,) = archived(db, tmp_path)
    detach(db.admin, again)


def test_a_change_after_the_comparison_stops_the_drop(finished: Database, tmp_path: Path) -> None:
    """Would catch: a withdrawal between the comparison and the drop, lost with the rows."""
    db = finished
    (written,) = archived(db, tmp_path)
    withdraw("download")(db)
    with pytest.raises(psycopg.Error, match="have changed since they were compared"):
        db.admin.execute("select mill.detach_partition(0, %s)", (written.generation,))
    assert db.value("select count(*) from mill.download") == 12


def test_what_needs_a_detached_partitions_rows_says_so(finished: Database, tmp_path: Path) -> None:
    """Would catch: a task of which its worker finds nothing, an empty partition in place of the one
    that is gone, URLs that stay known although their pairs were withdrawn."""
    db = finished
    (written,) = archived(db, tmp_path)
    db.admin.execute("update mill.task set state = 'discarded' where kind = 'download'")
    detach(db.admin, written)
    refused = [
        "select mill.retry_task((select task_id from mill.task where kind = 'download'))",
        "insert into mill.task (kind, batch_id, attempt) values ('download', 0, 9)",
        "select mill.withdraw((select min(submission_id) from mill.submission), 'wrong')",
    ]
    for statement in refused:
        with pytest.raises(psycopg.Error, match="pairmill archive restore 0-999"):
            db.admin.execute(statement)
    db.admin.execute("select mill.ensure_partitions(1999)")
    assert db.value("select to_regclass('mill.pair_b000000')") is None
    assert db.value("select count(*) from mill.seen_url") == 12
    place = (
        "select place, is_current, generation, rows > 0 from report.archive where first_batch = 0"
    )
    assert db.rows(place) == [("detached", True, 1, True)]


def test_what_was_withdrawn_while_detached_is_done_at_restore(
    finished: Database, tmp_path: Path
) -> None:
    """Would catch: a stopped worker's downloads that a release keeps, since its rows were archived;
    URLs and scores that nobody asks for again."""
    db = finished
    (written,) = archived(db, tmp_path)
    detach(db.admin, written)
    removal.add(db.admin, [URLS[1]], "asked for", False)
    for name in ("download", "score"):
        worker = db.value("select name from mill.worker where kind = %s", name)
        db.admin.execute("select mill.quarantine_worker(%s, null, 'it lied')", (worker,))
    assert db.value("select count(*) from mill.task where state = 'ready'") == 0
    with pytest.raises(UserError, match="pairmill archive restore 0-999"):
        current(db.admin)
    assert restore(db.admin, first(db)) == 9  # three of downloads, six of scores
    tasks = "select kind, attempt, cardinality(positions) from mill.task where state = 'ready' order by 1"
    assert db.rows(tasks) == [("download", 2, 12), ("score", 1, None)]
    assert db.rows("select from mill.withdrawn_detached") == []
    named = "select count(*) from mill.embedding e join mill.removed_pair r using (batch_id, n)"
    assert db.value(named) == 0
    assert db.value("select count(*) from mill.embedding") == 5
    assert current(db.admin) == []
    assert [p.generation for p in archived(db, tmp_path, partial=True)] == [2]


def test_a_removal_finds_what_is_detached(finished: Database, tmp_path: Path) -> None:
    """Would catch: a takedown that the archive hides from; a hash whose key another image shares; a
    download that gave no image, or was withdrawn, taken for the image."""
    db = finished
    images = dict(db.rows("select url, sha256 from report.pair where sha256 is not null"))
    db.admin.execute(
        "update mill.download set sha1 = substr(sha256, 13), pdq = sha256, dhash = 1085102592571146240 + n"
        " where outcome = 0"
    )
    dhash = db.value(
        "select d.dhash from mill.download d join mill.pair using (batch_id, n) where url = %s",
        URLS[4],
    )
    (written,) = archived(db, tmp_path)
    # another image of the same key
    other = images[URLS[5]][:8] + bytes(24)
    detach(db.admin, written)
    near = bytes([images[URLS[3]][0] ^ 3]) + images[URLS[3]][1:]
    wanted = {
        "h0.example": URLS[0],
        "http://h1.example/*": URLS[1],
        images[URLS[2]].hex(): URLS[2],
        f"pdq:{near.hex()}": URLS[3],
        f"dhash:{dhash}": URLS[4],
        other.hex(): None,
        URLS[9]: URLS[9],
        images[URLS[5]][12:].hex(): URLS[5],
    }
    for entry, url in wanted.items():
        removal.add(db.admin, [entry], "asked for", False, detached=find_in_detached)
        named = db.rows(
            "select k.url_key from mill.removed_pair p join mill.seen_url k using (batch_id, n)"
            " where p.removal_id >= (select max(removal_id) from mill.removal where spelling_of is null)"
        )
        assert named == ([(key(url),)] if url else []), entry
    assert restore(db.admin, first(db)) == 0
    assert db.value("select count(*) from report.pair where removed") == 7


def test_the_command_archives_detaches_and_restores(finished: Database, tmp_path: Path) -> None:
    """Would catch: a dry run that writes, JSON that scripts cannot read, an unreachable archive or
    a full disk as a traceback."""
    db = finished
    say_migrated(db.admin)
    environment = {"DATABASE_URL": db.dsn}

    def run(*arguments: str) -> Any:
        done = here(environment, "archive", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    root = str(tmp_path / "archive")
    planned = run("--to", root, "--detach", "--dry-run")
    assert [p["first_batch"] for p in planned["archived"]] == [0]
    assert [p["first_batch"] for p in planned["detached"]] == [0]
    assert not Path(root).exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = here(environment, "archive", "--to", str(blocked))
    assert done.returncode == 1
    assert "cannot be read or written" in sentence(done)
    assert run("--to", root, "--detach", "--yes")["detached"][0]["generation"] == 1
    assert run("verify", "--rows") == []
    done = here(environment, "retry")
    assert "batches 0-999 are passed over" in done.stderr
    assert [(p["place"], p["is_current"]) for p in run("list")] == [
        ("detached", True),
        ("live", None),
    ]
    assert [p["pairs"] for p in run("restore", "0")] == [12]
    assert db.value("select count(*) from mill.pair") == 12


def test_two_commands_do_not_write_at_once(finished: Database, tmp_path: Path) -> None:
    with psycopg.connect(finished.dsn) as other:
        with (
            generations.only_one(other),
            pytest.raises(UserError, match="is at work"),
            generations.only_one(finished.admin),
        ):
            pass
        with generations.only_one(finished.admin):
            assert catalogue.detached(finished.admin) == []

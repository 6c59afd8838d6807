"""`pairmill task` and `pairmill wat`: many at once, chosen in every way, with what is wrong named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.workers.errors import LeaseLost
from support.database import Database, pair_rows

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(db: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command: its exit code, and its output with the sentence of its error."""
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    # the command wants a migrated database; this one was made directly
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.output + str(done.exception or "")

    return run


def states(db: Database) -> str:
    return " ".join(s for (s,) in db.rows("select state from mill.task order by task_id"))


def test_tasks_are_parked_discarded_and_brought_back(db: Database, run: Run) -> None:
    for i in range(5):
        db.add_wat(f"{i}.wat")
    held = db.claim("extract")
    assert held
    assert run("task", "park", "1", "4-9", "--dry-run") == (
        0,
        "task 1 (extract, leased): would be parked\ntask 4 (extract, ready): would be parked\n"
        "task 5 (extract, ready): would be parked\n",
    )
    assert states(db) == "leased ready ready ready ready"
    run("task", "park", "1", "4-9", "--why", "the disk is full")
    assert states(db) == "parked ready ready parked parked"
    with pytest.raises(LeaseLost):
        db.queue("extract")[0].heartbeat(held.lease_id)
    # one wrong number does not lose the rest, and the exit code tells
    code, said = run("task", "discard", "2", "77", "4", "--json")
    assert code == 1
    assert "task 77: there is none such" in said
    assert states(db) == "parked discarded ready discarded parked"
    assert "task 3: it is ready, and cannot be queued again" in run("task", "retry", "3", "4")[1]
    assert states(db) == "parked discarded ready ready parked"
    # by reason: of --all and filters, retry means what was given up, and unpark what was parked
    assert run("task", "park", "--reason", "DISK") == (0, "no task is to be parked\n")
    assert run("task", "discard", "--reason", "DISK", "--kind", "extract")[0] == 0
    assert states(db) == "discarded discarded ready ready discarded"
    db.admin.execute("update mill.task set attempts = 3 where task_id = 3")
    run("task", "park", "3")
    run("task", "retry", "--all")
    assert states(db) == "ready ready parked ready ready"
    assert run("task", "unpark", "--all", "--dry-run")[1] == (
        "task 3 (extract, parked): would be queued again (extract)\n"
    )
    run("task", "unpark", "--all")
    assert states(db) == "ready ready ready ready ready"
    assert db.value("select attempts from mill.task where task_id = 3") == 3  # it never failed
    listed = json.loads(run("task", "list", "--reason", "Parked", "--state", "ready", "--json")[1])
    assert [t["task_id"] for t in listed] == [3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("retry",), "name the tasks"),
        (("park", "1", "--all"), "name the tasks"),
        (("discard", "x"), "'x' is no number of tasks"),
        (("discard", "5-3"), "'5-3' is no range of tasks"),
        (("retry", "--state", "done"), "only discarded and parked tasks can be queued again"),
        (("list", "--state", "broken"), "--state is ready, leased"),
        (("park", "40-50"), "no task of 40-50 can be parked"),
    ],
)
def test_wrong_choices_are_explained(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, said = run("task", *arguments)
    assert (code, says in said) == (1, True), said


def test_a_parked_score_task_keeps_its_thumbnails_for_a_while(db: Database, run: Run) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    (number,) = db.rows("select task_id from mill.task where kind = 'score'")[0]
    run("task", "park", str(number))
    steward = db.queue("steward")[0]
    assert steward.drained()  # nobody waits for it
    assert steward.maintain("empty_slots") == 0
    db.admin.execute("update mill.task set changed_at = now() - interval '2 days'")
    assert steward.maintain("empty_slots") == 1
    assert run("task", "unpark", str(number))[1].endswith("queued again (download)\n")
    db.download()
    assert db.score().payload["count"] == 6


def test_a_check_is_not_parked(db: Database, run: Run) -> None:
    db.extract(URLS)
    db.close_batches()
    db.download()
    db.admin.execute(
        "select mill.queue_replica(t, '{0,1}', '{}') from mill.task t where kind = 'download'"
    )
    number = str(db.value("select max(task_id) from mill.task"))
    assert "it is a check of another's work, and cannot be parked" in run("task", "park", number)[1]


# ---- WAT files -----------------------------------------------------------------------------------


def test_wat_files_are_taken_back(db: Database, run: Run) -> None:
    """With their pairs, whose URLs may come in again; one that nobody has begun leaves nothing."""
    db.extract(URLS, "https://data.commoncrawl.org/a.wat.gz")
    db.close_batches()
    db.add_wat("b.wat.gz")
    held = db.claim("extract")
    assert held
    db.add_wat("c.wat.gz")
    submitted = db.claim("extract")
    assert submitted
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(submitted.lease_id, ["http://c.example/c.jpg"]))
    queue.submit_extract(submitted.lease_id, 1, [("image", "links", "", 1)])
    for name in "de":
        db.add_wat(f"{name}.wat.gz")
    code, said = run("wat", "remove", "4", "e.wat.*", "nowhere.wat", "--dry-run")
    assert (code, said) == (
        1, "2 WAT files would be removed\nthere is no WAT file nowhere.wat; the others would be removed"
    )  # fmt: skip
    assert run("wat", "remove", "4", "e.wat.*")[0] == 0
    assert db.value("select count(*) from mill.task") == 4  # with the download
    # pairs, leases and submissions are asked about
    everything = "3 WAT files {0}removed, 6 pairs of 1 {0}withdrawn, 1 submission {0}rejected, 1 lease {0}ended"
    code, said = run("wat", "remove", "s3://commoncrawl/a.wat.gz", "2-3")
    assert (code, said.startswith(everything.format("would be "))) == (1, True)
    assert "--yes does it without a question" in said
    code, said = run("wat", "remove", "s3://commoncrawl/a.wat.gz", "2-3", "--yes")
    assert (code, said.splitlines()[-1]) == (0, everything.format(""))
    with pytest.raises(LeaseLost):
        queue.heartbeat(held.lease_id)
    assert db.accept_all() == []
    assert db.rows("select * from report.pair") == []
    assert db.rows("select * from report.wat") == [] == db.rows("select * from report.crawl")
    assert db.value("select count(*) from mill.seen_url") == 0
    assert (
        db.value("select count(*) from mill.task where kind = 'extract' and state <> 'done'") == 0
    )
    # what is withdrawn is not downloaded, and the same file may be added again
    claim = db.claim("download")
    assert claim and db.queue("download")[0].urls(claim.lease_id) == []
    db.extract(URLS, "https://data.commoncrawl.org/a.wat.gz")
    assert db.value("select count(*) from report.pair") == 6
    assert run("task", "retry", "--all") == (0, "no task is to be queued again\n")


def test_a_crawl_is_taken_back(db: Database, run: Run) -> None:
    db.admin.execute("select mill.add_wat('CC-MAIN-2024-51', '{a.wat,b.wat}')")
    db.add_wat("c.wat")
    assert (
        "there is no WAT file of CC-MAIN-2024-10"
        in run("wat", "remove", "--crawl", "CC-MAIN-2024-10")[1]
    )
    assert json.loads(run("wat", "remove", "--crawl", "CC-MAIN-2024-51", "--yes", "--json")[1]) == {
        "files": 2, "leases": 0, "submissions": 0, "extractions": 0, "pairs": 0, "missing": [], "dry_run": False,
    }  # fmt: skip
    assert db.value("select count(*) from mill.crawl") == 0
    assert [w["location"] for w in json.loads(run("wat", "list", "--json")[1])] == ["c.wat"]
    assert run("wat", "list", "--state", "done")[1] == "no such WAT files\n"
    assert "--state is ready" in run("wat", "list", "--state", "gone")[1]


def test_files_are_added_by_every_name_once(
    db: Database, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "some wats"
    folder.mkdir()
    for name in ("1.wat.gz", "2.wat", "notes.txt"):
        (folder / name).touch()
    (tmp_path / "link.wat").symlink_to(folder / "2.wat")
    given = ("some wats", "some wats/*.gz", "link.wat", f"file://{tmp_path}/some%20wats/2.wat")
    assert run("wat", "add", *given) == (0, "added 2 WAT files\n")
    assert run("wat", "add", str(folder / ".." / "some wats" / "2.wat"))[1] == (
        "added 0 WAT files, 1 were known already\n"
    )
    code, said = run("wat", "add", "gone.wat", "*.wet", "some wats")
    assert (code, "there is no file gone.wat, *.wet; nothing was added" in said) == (1, True)
    assert "gopher is not supported" in run("wat", "add", "gopher://a/b.wat")[1]
    theirs = "crawl-data/CC-MAIN-2024-51/segments/1/wat/3.warc.wat.gz"
    listing = folder / "wat.paths.gz"
    lines = [
        "# mine",
        "",
        str(folder / "1.wat.gz"),
        "2.wat",
        "../link.wat",
        theirs,
        "s3://commoncrawl/" + theirs,
    ]
    listing.write_bytes(gzip.compress("\n".join(lines).encode()))
    added = run("crawl", "add", "CC-MAIN-2024-51", "--paths", str(listing))
    assert added[1] == "added 1 WAT file, 3 were known already\n"  # a file of theirs has two names
    assert {location for (location,) in db.rows("select location from mill.wat_file")} == {
        str(folder / "1.wat.gz"), str(folder / "2.wat"), "https://data.commoncrawl.org/" + theirs,
    }  # fmt: skip
    listing.write_text("new.wat\n2.wat\n")
    (folder / "new.wat").touch()
    other = ("--language-detector", "fasttext")
    run("crawl", "add", "CC-MAIN-2024-51", "--paths", str(listing), *other)
    by_detector = "select language_detector, count(*) from report.wat group by 1 order by 1"
    # one that is known keeps its own: its pairs may be there already
    assert db.rows(by_detector) == [("cld3", 3), ("fasttext", 1)]
    code, said = run("wat", "add", "some wats", "--language-detector", "lingua")
    assert (code, said) == (1, "no language detector 'lingua'; there are: cld3, fasttext")
    with pytest.raises(psycopg.errors.CheckViolation, match="language_detector"):
        db.admin.execute("select mill.add_wat(null, '{x.wat}', '{image}', 'lingua')")
    listing.write_text("/nowhere/1.wat\nmissing.wat\n")
    code, said = run("crawl", "add", "CC-MAIN-2024-51", "--paths", str(listing))
    assert (code, "there is no file /nowhere/1.wat, missing.wat; nothing was added" in said) == (
        1,
        True,
    )

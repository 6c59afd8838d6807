"""Removals: what they keep out and from whom, while others are at work; and how they are undone."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import removal
from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome
from support.database import Database, key, outcomes, pair_rows, score_rows

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]


def pairmill(monkeypatch: pytest.MonkeyPatch, db: Database, *arguments: str) -> tuple[int, str]:
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    # the command wants a migrated database; this one was made directly
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output + str(done.exception or "")


def removed(db: Database) -> set[str]:
    return {
        url for (url,) in db.rows("select url from mill.pair join mill.removed using (batch_id, n)")
    }


def place(db: Database, url: str) -> int:
    return int(db.value("select n from mill.pair where url = %s", url))


def test_hosts_are_refused_at_the_merge_and_found_among_known_pairs(db: Database) -> None:
    """www.a.example is below a.example; xa.example is not; a Unicode host is its ASCII one."""
    urls = [
        "http://a.example/1.jpg", "http://A.example:8080/2.jpg", "http://www.a.example/3.jpg",
        "http://xa.example/4.jpg", "http://user@www.a.example/5.jpg", "http://bücher.example/6.jpg",
        "http://b.example/a.example/7.jpg",
    ]  # fmt: skip
    db.extract(urls[:4])
    report = removal.add(db.admin, ["a.example"], "asked", False)
    assert (report.matching_pairs, report.by_host) == (2, 2)
    assert removed(db) == set(urls[:2])
    removal.add(db.admin, ["*.a.example", "xn--bcher-kva.example"], "asked", False)
    assert removed(db) == set(urls[:3])
    db.extract(urls, "b.wat.gz")
    counts = "select sum(count) from mill.wat_count where stage = %s and name = %s"
    assert db.value(counts, "dropped", "removed") == 5
    assert db.value("select count(*) from mill.pair") == 5  # the four, and 7
    assert db.value("select links - pairs - duplicates from report.wat where wat_id = 2") == 5


def test_a_removed_pair_is_not_asked_for_and_its_batch_ends(db: Database) -> None:
    db.extract(URLS)
    db.close_batches()
    removal.add(db.admin, [URLS[0]], "", False)
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    asked = dict(queue.urls(claim.lease_id))
    assert set(asked.values()) == set(URLS[1:])
    # one that was handed out before it was removed may still be submitted
    removal.add(db.admin, [URLS[1], "h2.example"], "", False)
    queue.submit_download(claim.lease_id, 0, outcomes(list(asked)))
    queue.complete(claim.lease_id)
    db.accept_all()
    assert db.value("select state from mill.task where kind = 'download'") == "done"
    assert db.value("select count(*) from mill.download") == 5


@pytest.fixture
def scored(db: Database) -> Database:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    return db


def test_embeddings_and_thumbnails_of_removed_pairs(scored: Database) -> None:
    """Embeddings go at once and none comes later; no scorer that claims later sees a thumbnail."""
    first = removal.add(scored.admin, [URLS[0]], "", False)
    assert first.embeddings == 0
    claim = scored.claim("score", digest="d1")
    assert claim and claim.payload["count"] == 5
    queue, _ = scored.queue("score")
    removal.add(scored.admin, [URLS[1]], "", False)  # under its hands
    read = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 100)]
    assert len(read) == 5  # as many as it was promised
    queue.copy_scores(score_rows(claim.lease_id, 0, read))
    queue.submit_score(claim.lease_id, 0, 5)
    queue.complete(claim.lease_id)
    removal.add(scored.admin, [URLS[2]], "", False)  # before it is accepted
    scored.accept_all()
    assert scored.value("select state from mill.task where kind = 'score'") == "done"
    embedded = (
        "select array_agg(url order by url) from mill.pair join mill.embedding using (batch_id, n)"
    )
    assert scored.value(embedded) == URLS[3:]
    rehearsed = removal.add(scored.admin, [URLS[3]], "", True)
    assert (rehearsed.embeddings, scored.value(embedded)) == (1, URLS[3:])
    assert removal.add(scored.admin, [URLS[3]], "", False).embeddings == 1
    assert scored.value(embedded) == URLS[4:]
    assert scored.value("select count(*) from mill.score") == 5  # numbers stay


def test_an_image_is_named_when_it_is_downloaded_and_not_by_a_liar(db: Database) -> None:
    db.extract(URLS)
    db.close_batches()
    n = place(db, URLS[3])
    sha256 = hashlib.sha256(str(n).encode()).hexdigest()
    removal.add(db.admin, [sha256, key(str(n)).hex], "", False)
    db.download()
    assert removed(db) == {URLS[3]}
    withdrawal = "select mill.withdraw(max(submission_id), 'it lied') from mill.download"
    db.admin.execute(withdrawal)
    assert removed(db) == set()
    db.download()  # again, and the image is the same
    assert removed(db) == {URLS[3]}
    # as long as one download gave it
    db.admin.execute("select mill.retry_outcomes(array['success'], 0, 9, true)")
    db.download()
    db.admin.execute(withdrawal)
    assert removed(db) == {URLS[3]}


def test_images_among_known_downloads(scored: Database) -> None:
    n = place(scored, URLS[2])
    report = removal.add(scored.admin, [key(str(n)).hex, URLS[2], "h2.example"], "", False)
    assert (report.matching_pairs, report.by_url, report.by_host, report.by_image) == (1, 1, 1, 1)


def an_extraction(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, URLS))
    queue.submit_extract(claim.lease_id, len(URLS), [("image", "links", "", len(URLS))])


def a_download(db: Database) -> None:
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes([place(db, url) for url in URLS]))
    queue.complete(claim.lease_id)


def waiting_for(
    first: psycopg.Connection, db: Database, work: Callable[[psycopg.Connection], Any]
) -> Any:
    """What the work gave, in a session that had to wait until the first one committed."""
    found: list[Any] = []
    with psycopg.connect(db.dsn, autocommit=True) as other:
        working = threading.Thread(target=lambda: found.append(work(other)))
        working.start()
        blocked = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"
        )
        while working.is_alive() and not db.value(blocked, other.info.backend_pid):
            pass
        assert not found
        first.commit()
        working.join()
    (answer,) = found
    return answer


@pytest.mark.parametrize("arrives", [an_extraction, a_download])
def test_nothing_slips_past_a_removal_that_is_added_meanwhile(
    db: Database, arrives: Callable[[Database], None]
) -> None:
    """The acceptance is held open: a search that did not wait for it would not see its rows."""
    arrives(db)
    image = hashlib.sha256(b"0").hexdigest()
    entry = URLS[0] if arrives is an_extraction else image
    with psycopg.connect(db.dsn) as steward:
        # as the steward's login, whose transaction is not over yet
        db.queue("steward")
        login = db.value("select login from mill.worker where kind = 'steward'")
        steward.execute(f'set session authorization "{login}"')
        assert steward.execute("select * from api.accept_next_v1()").fetchone()
        report = waiting_for(steward, db, lambda other: removal.add(other, [entry], "", False))
    assert report.matching_pairs == 1
    assert len(removed(db)) == 1


def test_a_withdrawal_that_is_under_way_leaves_no_pair_removed(scored: Database) -> None:
    """A pair whose only image was a liar's stayed removed, and was never asked for."""
    sha256 = scored.value("select encode(sha256, 'hex') from mill.download where n = 1")
    with psycopg.connect(scored.dsn) as judge:
        judge.execute("select mill.withdraw(submission_id, 'lied') from mill.download where n = 1")
        waiting_for(judge, scored, lambda other: removal.add(other, [sha256], "", False))
    assert scored.rows("select * from mill.removed_pair") == []


def test_a_removal_is_taken_back_while_its_pairs_are_searched(db: Database) -> None:
    """The search ended in a violated foreign key."""
    db.extract(URLS)
    db.admin.execute(
        "insert into mill.removal (source, host, reason) values ('h1.example', 'h1.example', '')"
    )
    ids = [db.value("select removal_id from mill.removal")]
    with psycopg.connect(db.dsn) as searching:
        searching.execute("select mill.find_removed_hosts(%s, 0, 99)", (ids[0],))
        undone = waiting_for(searching, db, lambda other: removal.undo(other, ids, "", False))
    assert undone.pairs == 1
    db.admin.execute(
        "select mill.find_removed_hosts(%s, 100, 199), mill.find_removed_urls(%s)", (ids[0], ids[0])
    )
    assert removed(db) == set()


def test_a_pair_of_two_removals_that_are_taken_back_counts_once(db: Database) -> None:
    """The history had more pairs than there were, and on other days than they were removed."""
    db.extract(URLS)
    removal.add(db.admin, ["h1.example", URLS[1], URLS[2]], "", False)
    db.admin.execute("update mill.removed_pair set found_at = found_at - interval '2 days'")
    removal.undo(db.admin, removal.named_by(db.admin, ["h1.example", URLS[1], URLS[2]]), "", False)
    history = "select current_date - day, added, withdrawn from report.history where stage = 'removed_pair' order by 1"
    db.admin.execute("set timezone = 'UTC'")
    assert db.rows(history) == [(0, 0, 2), (2, 2, 0)]


def test_an_interrupted_search_is_ended_by_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.extract(URLS)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        removal.add(db.admin, ["h0.example"], "", False, interrupt)
    assert removed(db) == set()
    with pytest.raises(UserError, match="not over"):  # of a release, export or index
        removal.require_found(db.admin)
    assert removal.add(db.admin, ["h1.example"], "", True).matching_pairs == 1
    assert removal.add(db.admin, ["h1.example"], "", False).matching_pairs == 1
    assert removed(db) == {URLS[0], URLS[1]}
    removal.require_found(db.admin)
    db.extract(["http://h0.example/new.jpg"], "b.wat.gz")  # refused from the beginning
    assert db.value("select count(*) from mill.pair") == 6


def test_removals_that_another_admin_adds_meanwhile_are_his(db: Database) -> None:
    """A first admin's yes called a second one's search over, which had been cut off, so that
    releases held its pairs; a no took the second one's removals back."""
    db.extract(URLS)

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def second(host: str) -> None:
        with psycopg.connect(db.dsn, autocommit=True) as other, pytest.raises(KeyboardInterrupt):
            removal.add(other, [host], "", False, killed)

    removal.add(db.admin, ["h0.example"], "", False, confirm=lambda report: second("h1.example"))
    with pytest.raises(UserError, match="not over"):
        removal.require_found(db.admin)

    def no(report: removal.Report) -> None:
        second("h3.example")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        removal.add(db.admin, ["h2.example"], "", False, confirm=no)
    removal.finish_search(db.admin, None)
    assert removed(db) == {URLS[0], URLS[1], URLS[3]}


def test_a_removal_is_taken_back(scored: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that no other removal names come back, with what was passed over meanwhile."""
    scored.score()
    scored.extract(["http://h9.example/é.jpg", "http://h8.example/8.jpg"], "b.wat.gz")
    scored.close_batches()
    removal.add(
        scored.admin, ["http://h9.example/%C3%A9.jpg", "h0.example", URLS[0]], "asked", False
    )
    scored.download()  # of h8 alone
    scored.score()
    assert scored.claim("download") is None
    why = ("--reason", "it was a slip")
    run: Callable[..., tuple[int, str]] = lambda *a: pairmill(monkeypatch, scored, "removal", *a)  # noqa: E731
    planned = run("remove", "http://H9.example/é.jpg", "h0.example", "--dry-run")
    assert planned[1].startswith("2 removals would be taken back; 1 pair would be allowed again")
    assert len(removed(scored)) == 2
    code, said = run("remove", "http://H9.example/é.jpg", "h0.example", *why)
    assert (code, said.splitlines()[:2]) == (
        0, ["2 removals taken back; 1 pair is allowed again",
            "1 URL that nobody was asked for queued for download"],
    )  # fmt: skip
    assert removed(scored) == {URLS[0]}  # its URL is named, too
    assert scored.download(Outcome.SUCCESS).payload["attempt"] == 2
    # a URL that is asked for in another spelling than that in which it was added
    code, said = run(
        "remove", URLS[0].replace("http://h0.example", "HTTP://H0.example:80"), "--json", *why
    )
    assert json.loads(said) == {
        "removals": 1, "pairs": 1, "urls": 0, "batches": 0, "unscored": 0, "unembedded": 1, "dry_run": False,
    }  # fmt: skip
    undone = json.loads(run("list", "--undone", "--json")[1])
    assert [(u["source"], u["pairs"], u["why"]) for u in undone] == [
        (URLS[0], 1, "it was a slip"),
        ("h0.example", 0, "it was a slip"),
        ("http://h9.example/%C3%A9.jpg", 1, "it was a slip"),
    ]
    assert undone[0]["undone_by"] == scored.value("select session_user::text")
    assert scored.value("select count(*) from mill.removal") == 0


def test_a_page_is_taken_down_with_its_images(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's owner was told that no known pair is named, and nothing was removed."""
    db.extract(URLS, pages=["http://p.example/1"] * 2 + ["http://p.example/2"] * 4)
    code, said = pairmill(monkeypatch, db, "removal", "add", "http://p.example/3", "--page")
    assert (code, "no known pair is of a page http://p.example/3" in said) == (1, True)
    code, said = pairmill(monkeypatch, db, "removal", "add", "http://p.example/1", "--dry-run")
    assert (code, "--page takes URLs of pages" in said) == (0, True)
    code, said = pairmill(monkeypatch, db, "removal", "add", "HTTP://P.example:80/1", "--page")
    assert (code, "2 added" in said, removed(db)) == (0, True, set(URLS[:2]))


def test_a_pair_whose_only_download_was_withdrawn_is_asked_for_again(db: Database) -> None:
    """Its first task, which is still open, asks no more for it: taken back, the pair was lost."""
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download", "liar")
    assert claim
    queue, _ = db.queue("download", "liar")
    n = place(db, URLS[0])
    queue.submit_download(claim.lease_id, 0, outcomes([n, (n + 1) % 6]))
    db.accept_all()
    removal.add(db.admin, [URLS[0]], "", False)
    db.admin.execute("select mill.quarantine_worker('liar', null, 'it lied')")
    db.admin.execute(
        "select mill.park_task(task_id, '') from mill.task where kind = 'download' and attempt = 1"
    )
    assert db.download().payload["attempt"] == 2  # of the other alone
    (number,) = db.rows("select removal_id from mill.removal where spelling_of is null")[0]
    assert removal.undo(db.admin, [number], "", False).urls == 1
    assert db.download().payload["attempt"] == 3
    assert db.value("select outcome from report.pair where url = %s", URLS[0]) == "success"


def test_a_backfill_scores_what_was_removed_while_thumbnails_are_there(scored: Database) -> None:
    """`removal remove` names that command, which queued nothing until the ring was emptied."""
    removal.add(scored.admin, [URLS[0]], "", False)
    scored.score()
    assert removal.undo(scored.admin, [1], "", False).unscored == 1
    assert scored.rows("select score_tasks, urls from mill.backfill_model(1, 0, 100)") == [(1, 0)]
    assert scored.score().payload["count"] == 1
    assert scored.value("select count(*) from report.score") == 6


def test_the_commands_say_what_is_wrong(
    db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run: Callable[..., tuple[int, str]] = lambda *a: pairmill(monkeypatch, db, "removal", *a)  # noqa: E731
    assert "no file nowhere/list" in run("add", "nowhere/list")[1]
    assert "'list.txt' is no http(s) URL" in run("add", "list.txt")[1]
    assert "no removal is 7, http://a.example/" in run("remove", "7", "http://a.example/")[1]
    assert "--kind is one of url, prefix, host" in run("list", "--kind", "md5")[1]
    db.extract([*URLS, "http://H0.example/0.jpg?é"])
    path = tmp_path / "list"
    path.write_text("# two\n*.h0.example\nh1.example\n")
    said = run("add", str(path), URLS[0], "ab" * 32, "--reason", "asked", "--dry-run")
    assert said == (
        0, "4 would be added, 0 known already; they name 3 known pairs (1 by URL, 3 by host)\n"
    )  # fmt: skip
    code, out = run("add", str(path), URLS[0], "--reason", "asked")
    assert (code, out.splitlines()[0]) == (
        0, "3 added, 0 known already; they name 3 known pairs (1 by URL, 3 by host)"
    )  # fmt: skip
    assert "pairmill release update" in out
    listed = json.loads(run("list", "--kind", "host", "--json")[1])
    assert [(r["source"], r["pairs"], r["found"]) for r in listed] == [
        ("h1.example", 1, True), ("*.h0.example", 2, True),
    ]  # fmt: skip
    assert run("list", "--reason", "other")[1] == "no such removals\n"
    assert [r["source"] for r in json.loads(run("list", "H1.example.", "--json")[1])] == [
        "h1.example"
    ]

"""The public page over HTTP: its numbers are the database's, its names those of who said so."""

import json
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, cast
from urllib.parse import quote

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import logins, status
from pairmill.ops.cli import app as pairmill
from pairmill.ops.web import live
from pairmill.ops.web.live import refresh
from pairmill.ops.web.live.line_state import PARTS, read
from pairmill.ops.web.live.public import public_app
from pairmill.ops.web.live.refresh import Refresher
from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes
from support.hostile_text import HOSTILE, RAW
from support.pages import browsing
from support.template import Template

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(20)]
PATHS = ("/", "/leaderboard", "/join", "/crawls")
FUNNEL = ("wat_files", "records", "bad_records", "ended_early", "links", "dropped", "duplicates",
          "pairs", "fetched", "scored", "other_links")  # fmt: skip
NAMES = ("ada", "eve/../join?x#y", "<script>alert(1)</script>", "a‮gnp\\u200b\"'&amp;")


class Line:
    """A database at work and its public page. The page's thread sleeps; ``again`` is its round."""

    def __init__(self, db: Database, client: httpx.Client, refresher: Refresher) -> None:
        self.db, self.client, self.refresher = db, client, refresher

    def again(self) -> dict[str, Any]:
        self.refresher.once()
        return cast(dict[str, Any], self.client.get("/live.json").json())


def work(db: Database) -> None:
    """Half of the pairs are downloaded, by ada, some in vain; some are scored, one was removed."""
    db.add_model()
    db.extract(URLS, pages=["http://p.example/"] * len(URLS))
    db.close_batches()
    queue, _ = db.queue("download", "ada")
    claim = db.claim("download", "ada")
    assert claim
    queue.submit_download(claim.lease_id, 0, outcomes(range(8)))
    queue.submit_download(claim.lease_id, 1, outcomes(range(8, 12), Outcome.TIMEOUT))
    queue.release(claim.lease_id)
    db.accept_all()
    db.admin.execute("select mill.fold_counts(), mill.fold_credit()")


@pytest.fixture(scope="module")
def line(server: str) -> Iterator[Line]:
    with Template(server).copy() as db:
        work(db)
        app = public_app(logins.add_page(admin_of(db), "live"), title="A <crawl>")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(refresh, "PAUSE", 3_600.0)
            with browsing(app) as client:
                refresher = app.state.refresher
                with refresher.taken:
                    assert refresher.taken.wait_for(lambda: refresher.rounds > 0, 60)
                yield Line(db, client, refresher)


def admin_of(db: Database) -> psycopg.Connection[Any]:
    return cast(psycopg.Connection[Any], db.admin)


def test_numbers_are_those_of_status(line: Line) -> None:
    """Would catch: a page that counts otherwise than `pairmill status --json`."""
    found = line.again()
    said = json.loads(json.dumps(status.gather(admin_of(line.db)), default=str))
    assert found["funnel"] == {name: said[name] for name in FUNNEL}
    assert found["funnel"]["fetched"] == {"success": 8, "timeout": 4, "waiting": 8}
    assert found["totals"] == {"pairs": 20, "fetched": 12, "images": 8, "scored": 0}
    assert {row["kind"]: row["done"] for row in found["queue"]} == {
        "extract": 1, "download": 0, "score": 0,
    }  # fmt: skip
    assert found["ring"] == said["ring"]
    assert [(row["name"], row["waiting"], row["to_come"]) for row in found["stages"]] == [
        ("extract", 0, 0), ("download", 8, 0), ("score", 8, 5),
    ]  # fmt: skip


def test_a_visitor_costs_no_query(line: Line) -> None:
    """Would catch: a page that asks the database, or renders, for each of its visitors."""
    before = line.again()
    line.db.extract(["http://more.example/1.jpg"], "more.wat.gz")
    pages = {path: [line.client.get(path).content for _ in range(2)] for path in PATHS}
    assert all(first == second for first, second in pages.values())
    assert line.client.get("/live.json").json() == before
    assert line.again()["funnel"]["links"] == before["funnel"]["links"] + 1


def test_answers_are_kept_for_ten_seconds_and_sent_once(line: Line) -> None:
    """Would catch: a tag that does not hold, an answer in a coding that was not asked for."""
    line.again()
    for path in (*PATHS, "/live.json"):
        packed = line.client.get(path)
        plain = line.client.get(path, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content
        assert plain.headers["cache-control"] == "public, max-age=10"
        assert plain.headers["vary"] == "accept-encoding"
        again = line.client.get(path, headers={"If-None-Match": plain.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = line.client.head(path, headers={"Accept-Encoding": "identity"})
        assert int(head.headers["content-length"]) == len(plain.content)
        assert line.client.post(path).status_code == 405
    etag = line.client.get("/live.json").headers["etag"]
    line.db.extract(["http://newer.example/1.jpg"], "newer.wat.gz")
    line.again()
    fresh = line.client.get("/live.json", headers={"If-None-Match": etag})
    assert fresh.status_code == 200


def test_nothing_of_a_page_is_inline_and_all_of_it_is_there(line: Line) -> None:
    """Would catch: what the policy of the pages forbids, a page that is cut off."""
    line.again()
    for path in (*PATHS, "/worker/nobody"):
        text = line.client.get(path).text
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", text), path
        assert text.rstrip().endswith("</html>")
        for tag in re.findall(r'(?:href|src)="(/static/[^"]+)"', text):
            assert line.client.get(tag).status_code == 200
    assert "A &lt;crawl&gt;" in line.client.get("/").text


def test_names_are_those_whose_owners_said_so(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a worker that is named unasked, or a page that tells that there is one."""
    queue, _ = line.db.queue("download", "ada")
    address = "/worker/ada"
    before = line.again()
    assert before["leaderboard"] == []
    assert [row for row in before["anonymous"] if row["kind"] == "download"] == [
        {"kind": "download", "workers": 1, "rows": 12, "rows_last_day": 12, "checks": 0}
    ]
    hidden, unknown = line.client.get(address), line.client.get("/worker/nobody")
    assert (hidden.status_code, hidden.content) == (404, unknown.content)
    assert not queue.me()["is_shown"]

    def say(answer: str) -> str:
        monkeypatch.setenv("PAIRMILL_WORKER_DSN", queue._dsn)
        return CliRunner().invoke(pairmill, ["worker", "show-name", answer]).output

    assert "ada is named on the public page" in say("yes")
    say("yes")
    assert queue.me()["is_shown"]
    shown = line.again()
    (leader,) = shown["leaderboard"]
    assert (leader["name"], leader["rank"], leader["ranked"], leader["rows"]) == ("ada", 1, 1, 12)
    assert not [row for row in shown["anonymous"] if row["kind"] == "download"]
    assert 'href="/worker/ada"' in line.client.get("/leaderboard").text
    page = line.client.get(address)
    assert page.status_code == 200 and "not checked yet" in page.text
    assert "ada is named nowhere" in say("no")
    assert line.again()["leaderboard"] == []
    assert line.client.get(address).status_code == 404


def test_credit_is_that_of_the_leaderboard_and_of_checks(line: Line) -> None:
    """Would catch: rows that count although they were withdrawn, checks that nobody counts."""
    db = line.db
    queue, _ = db.queue("download", "ada")
    queue.show_name(True)
    with db.admin.transaction(force_rollback=True):
        worker = "(select worker_id from mill.worker where name = 'ada')"
        db.admin.execute(
            f"insert into mill.replication (worker_id, task_id) select {worker}, task_id from mill.task where kind = 'download'"
        )
        db.admin.execute("update mill.replication set state = 'agreed', decided_at = now()")
        db.admin.execute(
            f"select mill.withdraw(max(submission_id), 'x') from mill.submission where worker_id = {worker}"
        )
        for fold in (False, True):
            if fold:
                db.admin.execute("select mill.fold_credit()")
            urls = db.rows("select urls, urls_last_day from report.leaderboard where name = 'ada'")
            assert (
                db.rows("select rows, rows_last_day from api.live_people_v1() where name = 'ada'")
                == urls
                == [(8, 8)]
            )
            assert db.value("select checks from api.live_people_v1() where name = 'ada'") == 1
            assert db.rows("select * from mill.miscredit") == []
    queue.show_name(False)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_text(line: Line, name: str) -> None:
    """Would catch: a name as markup, as part of an address, or with orders for a terminal."""
    db = line.db
    db.admin.execute(
        'alter table mill.worker drop constraint if exists "no control characters in name"'
    )
    db.admin.execute("update mill.worker set name = %s where name = 'ada'", (name,))
    queue, _ = db.queue("download", "ada")
    try:
        assert queue.show_name(True) == name
        (leader,) = line.again()["leaderboard"]
        assert leader["name"] == name
        for path in ("/leaderboard", "/worker/" + quote(name, safe="")):
            page = line.client.get(path)
            assert page.status_code == 200
            assert not RAW.search(page.text) and "<script>alert" not in page.text
        (address,) = re.findall(r'href="(/worker/[^"]*)"', line.client.get("/leaderboard").text)
        assert line.client.get(address).status_code == 200
    finally:
        queue.show_name(False)
        db.admin.execute("update mill.worker set name = 'ada' where name = %s", (name,))


def test_hostile_words_of_a_database_are_text(line: Line) -> None:
    """Would catch: a recipe's name, a signal or a reason that is more than text on a page."""
    parts = read(admin_of(line.db))
    row = {
        "name": HOSTILE,
        "version": 1,
        "built_at": parts["progress"][0]["at"],
        "candidates": 2,
        "kept": 1,
    }
    parts["releases"] = [row]
    parts["opt_outs"] = [{"by": "site", "signal": HOSTILE, "count": 1}]
    parts["links"] += [{"link_kind": "image", "stage": "dropped", "name": HOSTILE, "count": 3}]
    parts["pairs"] += [{"language": HOSTILE, "outcome": None, "pairs": 1},
                       {"language": None, "outcome": HOSTILE, "pairs": 1}]  # fmt: skip
    parts["crawls"] = [parts["crawls"][0] | {"crawl": HOSTILE}]
    line.refresher.board.show(parts)
    for path in PATHS:
        text = line.client.get(path).text
        assert not RAW.search(text) and "<script>alert" not in text, path
    assert line.client.get("/live.json").json()["releases"][0]["name"] == HOSTILE
    line.again()


def test_rates_come_from_what_the_steward_noted(line: Line) -> None:
    """Would catch: rates of a table that nobody writes, and hours that are never told."""
    db = line.db
    db.admin.execute("delete from mill.progress")
    db.admin.execute(
        "insert into mill.progress select now() - interval '3 hours' + n * interval '1 hour', 0, 0, 5, n, 0, 0 from generate_series(0, 2) n"
    )
    steward, _ = db.queue("steward")
    steward.maintain("ensure_partitions")
    assert db.value("select count(*) from mill.progress") == 4
    steward.maintain("ensure_partitions")
    assert db.value("select count(*) from mill.progress") == 4, "one a minute is enough"
    found = line.again()
    download = found["stages"][1]
    assert download["per_hour"]["hour"] == pytest.approx(10, rel=0.01)
    assert download["per_hour"]["day"] == pytest.approx(4, rel=0.01)
    assert download["per_hour"]["week"] is None
    low, high = download["eta_seconds"]
    assert low == pytest.approx(download["waiting"] / 10 * 3600, rel=0.01)
    assert high == pytest.approx(download["waiting"] / 4 * 3600, rel=0.01)
    assert [row["fetched"] for row in found["hours"]] == [1, 1, 10]
    assert "min to" in line.client.get("/").text or "h to" in line.client.get("/").text


def test_a_database_away_is_said_and_the_last_numbers_stay(line: Line) -> None:
    """Would catch: an error in place of the last numbers, numbers that look new, a thread that
    ends with its connection."""
    db, dsn = line.db, line.refresher._dsn
    before = line.again()
    assert before["answering"] is True
    line.refresher._dsn = re.sub(r"port=\d+|host=\S+", lambda m: "port=1" if m[0].startswith("port") else "host=127.0.0.1", dsn)  # fmt: skip
    db.admin.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'pairmill web live'"
    )
    gone = line.again()
    assert gone == before | {"answering": False}
    for path in PATHS:
        page = line.client.get(path)
        assert page.status_code == 200
        assert "The database does not answer" in page.text
        assert re.search(r"These numbers are <time [^>]*>\d+ (s|min) ago</time>", page.text)
    line.refresher._dsn = dsn
    assert line.again()["answering"] is True
    assert "does not answer" not in line.client.get("/").text


@pytest.mark.parametrize("broken", ["refresh.read", "board.tree", "board.view"])
def test_what_cannot_be_shown_ends_no_thread(
    line: Line, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Would catch: a thread that ends of an error that is not the database's, and a page that
    passes old numbers for new from then on."""
    before, real = line.again(), attrgetter(broken)(live)
    faults = [KeyError("a part")]

    def once(*given: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*given)

    monkeypatch.setattr(f"pairmill.ops.web.live.{broken}", once)
    assert line.again() == before | {"answering": False}
    assert line.again()["answering"] is True


def test_before_the_first_snapshot_there_is_a_page_that_says_so() -> None:
    """Would catch: a 500, or zeros, where nothing was ever read."""
    app = public_app("postgresql://nobody:x@127.0.0.1:1/none")
    with browsing(app) as client:
        refresher = app.state.refresher
        with refresher.taken:
            assert refresher.taken.wait_for(lambda: refresher.rounds > 0, 60)
        for path in PATHS:
            page = client.get(path)
            assert (page.status_code, page.headers["retry-after"]) == (503, "10")
            assert "The database has not answered" in page.text
        answer = client.get("/live.json")
        assert (answer.status_code, answer.json()["status"]) == (503, 503)


def test_the_login_calls_the_pages_functions_and_no_others(line: Line) -> None:
    """Would catch: a function too many in the hands of whoever takes the public process over."""
    called = line.db.rows(
        "select n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname in ('mill', 'api') and has_function_privilege(%s, p.oid, 'execute')",
        line.db.group("live"),
    )
    assert sorted(name for (name,) in called) == sorted(f"api.live_{part}_v1" for part in PARTS)


def test_the_schema_that_is_missing_is_named(server: str, template: Template) -> None:
    """Would catch: psycopg's words where an admin forgot to migrate."""
    with template.copy() as db:
        dsn = logins.add_page(admin_of(db), "live")
        db.admin.execute("drop function api.live_ring_v1")
        app = public_app(dsn)
        refresher = Refresher(dsn, app.state.board)
        refresher.once()
        assert refresher._said == refresh.OTHER_SCHEMA
        assert app.state.board.pages["/"].status == 503

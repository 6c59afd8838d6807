"""The command as a person meets it: one sentence for what is wrong, and an exit code."""

import gzip
import io
import json
import re
import socket
import urllib.request
from pathlib import Path

import psycopg
import pytest

from pairmill import migrations
from pairmill.ops.demo import model
from pairmill.ops.demo.site import build
from pairmill.ops.demo.wat import write_wat
from pairmill.schema.outcomes import Outcome
from pairmill.workers.extract.language import LanguageDetector
from support.database import Database, empty_database
from support.line import Line, Web, sentence, wait_until


def refusal(line: Line, *command: str) -> str:
    return sentence(line.run(*command))


def test_database_that_is_not_there(tmp_path: Path) -> None:
    line = Line("postgresql://nobody@127.0.0.1:1/none", tmp_path)
    assert refusal(line, "status").startswith("pairmill: cannot connect to the database:")
    here = ("--dsn", "postgresql://x:y@127.0.0.1:1/none")
    said = "pairmill: cannot reach the database: nothing listens at 127.0.0.1:1: "
    assert refusal(line, "worker", "me", *here).startswith(said)


PASSWORD = "Zq3-Wx_9"
NEWCOMERS = [
    (("work", "download"), {}, "there is no DSN: put the line that the admin sent"),
    (("work", "steward"), {"PAIRMILL_WORKER_DSN": " "}, "there is no DSN: put the line that"),
    (("worker", "me"), {}, "there is no DSN: put the line that the admin sent"),
    (("work", "download"), {"PAIRMILL_WORKER_DSN": f"postgresql://pm_1:{PASSWORD}"}, "the DSN ends before the host"),
    (("worker", "me", "--dsn", f"postgresql://pm_1:{PASSWORD}@db"), {}, "the DSN has no database"),
    (("status",), {}, "there is no database: an admin sets DATABASE_URL, or makes one in this"),
    (("status", "--watch"), {}, "there is no database: an admin sets DATABASE_URL"),
    (("worker", "list"), {"PAIRMILL_WORKER_DSN": "postgresql://x:y@h/d"}, "there is no database"),
    (("researcher", "list"), {}, "there is no database"),
    (("status",), {"DATABASE_URL": f"postgresql://a:{PASSWORD}"}, "DATABASE_URL ends before the host"),
    (("status",), {"DATABASE_URL": f"http://a:{PASSWORD}@h/d"}, "DATABASE_URL is a web address"),
    (("migrate",), {"PAIRMILL_POSTGRES_BIN": "/none"}, "there is no initdb or no postgres in /none"),
    (("db", "start"), {"PAIRMILL_POSTGRES_BIN": "/none"}, "there is no initdb or no postgres in"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "environment", "says"), NEWCOMERS)
def test_newcomer_is_told_what_is_missing_and_nothing_is_made(
    tmp_path: Path, command: tuple[str, ...], environment: dict[str, str], says: str
) -> None:
    """Would catch: a folder, or a server, of somebody who has no use for one; a password in an
    error; advice to install what a volunteer needs not."""
    line = Line("", tmp_path / "home")
    line.environment |= {"HOME": str(tmp_path), "PAIRMILL_WORKER_DSN": ""} | environment
    said = sentence(line.here(*command))
    assert said.startswith(f"pairmill: {says}")
    assert PASSWORD[:4] not in said and "pip install" not in said
    assert list(tmp_path.iterdir()) == []


def test_stopping_what_was_never_started_makes_nothing(tmp_path: Path) -> None:
    line = Line("", tmp_path / "home")
    assert line.here("db", "stop").stdout == "it was not running\n"
    assert list(tmp_path.iterdir()) == []


def test_database_url_of_a_worker_is_no_admins(line: Line, db: Database) -> None:
    """Would catch: "permission denied for schema mill"."""
    line.environment["DATABASE_URL"] = db.login("download")
    assert "has no admin's rights on this database: name a superuser" in refusal(line, "status")


def test_url_is_printed_of_a_server_that_runs_and_of_no_other(server: str, tmp_path: Path) -> None:
    """Would catch: a URL on which nobody listens, which psql would be blamed for."""
    line = Line("", tmp_path)
    stopped = "the embedded server does not run: start it with `pairmill db start`"
    assert refusal(line, "db", "url") == f"pairmill: {stopped}"
    assert list(tmp_path.iterdir()) == []  # asking made no server
    try:
        started = line.pairmill("db", "start")
        assert line.pairmill("db", "url") == started
        with psycopg.connect(started.strip()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        line.pairmill("db", "stop")
    assert refusal(line, "db", "url") == f"pairmill: {stopped}"
    named = Line(server, tmp_path)
    assert named.pairmill("db", "url").strip() == server


def test_unmigrated_and_newer_databases(server: str, tmp_path: Path) -> None:
    with empty_database(server) as dsn:
        line = Line(dsn, tmp_path)
        assert "run `pairmill migrate`" in refusal(line, "status")
        newest = migrations.revisions()[-1]
        assert f"schema at revision {newest}, was empty" in line.pairmill("migrate")
        assert "already" in line.pairmill("migrate")
        assert line.status()["links"] == 0
        assert "there is no revision '0000'" in refusal(line, "migrate", "--to", "0000")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("drop function mill.version")
            assert "views of another version of pairmill: run `pairmill" in refusal(line, "status")
            assert "functions and views made anew" in line.pairmill("migrate")
            assert line.status()["links"] == 0
            connection.execute("update mill.migration set version_num = '0099'")
        assert "newer than this code: upgrade pairmill" in refusal(line, "wat", "list")
        assert "newer than this code: upgrade pairmill" in refusal(line, "migrate")


def test_workers_are_added_listed_and_disabled(line: Line) -> None:
    dsn = line.pairmill("worker", "add", "ada-1", "--kind", "download").strip()
    assert dsn.startswith("postgresql://pm_")
    assert "ada-1" not in dsn  # three letters may well be in a login of hexadecimal digits
    assert "there is a worker 'ada-1' already" in refusal(
        line, "worker", "add", "ada-1", "--kind", "score"
    )
    assert "unknown kind 'cook'" in refusal(line, "worker", "add", "x", "--kind", "cook")
    elsewhere = {
        host: line.pairmill("worker", "rotate", "ada-1", "--host", host).partition("@")[2]
        for host in ("db.example.org", "db.example.org:6432", "[2001:db8::1]:6432", "2001:db8::1")
    }
    own = dsn.rpartition("@")[2].partition("/")[0].rpartition(":")[2]
    assert [where.partition("/")[0] for where in elsewhere.values()] == [
        f"db.example.org:{own}", "db.example.org:6432", "[2001:db8::1]:6432", f"[2001:db8::1]:{own}",
    ]  # fmt: skip
    assert "--host is HOST" in refusal(line, "worker", "rotate", "ada-1", "--host", "db:x")
    dsn = line.pairmill("worker", "rotate", "ada-1").strip()
    me = json.loads(line.pairmill("worker", "me", "--dsn", dsn, "--json"))
    assert (me["name"], me["kind"], me["rows_accepted"]) == ("ada-1", "download", 0)
    assert [w["name"] for w in json.loads(line.pairmill("worker", "list", "--json"))] == ["ada-1"]
    assert "is for kind download, not extract" in refusal(line, "work", "extract", "--dsn", dsn)
    line.pairmill("worker", "disable", "ada-1")
    line.pairmill("worker", "disable", "ada-1", "--reason", "too slow")
    why = (
        r"pairmill: worker ada-1 was disabled by an admin on [\d :-]+ UTC: too slow; ask the admin"
    )
    for command in (("worker", "me"), ("work", "extract"), ("work", "score", "--model", "none")):
        assert re.fullmatch(why, refusal(line, *command, "--dsn", dsn)), command
    told = line.here("worker", "me", "--dsn", dsn, "--json")
    assert (told.returncode, json.loads(told.stdout)["state"]) == (1, "disabled")
    (listed,) = json.loads(line.pairmill("worker", "list", "--json"))
    assert listed["disabled_because"] == "too slow"
    assert "too slow" in line.pairmill("worker", "list")
    assert "an unproven worker; its DSN" in line.pairmill("worker", "enable", "ada-1")
    assert "not disabled: nothing was changed" in sentence(line.run("worker", "enable", "ada-1"))
    again = line.here("worker", "me", "--dsn", dsn)
    assert (again.returncode, "active" in again.stdout) == (0, True)
    for command in ("disable", "enable", "rotate"):
        assert "there is no worker 'eve'" in refusal(line, "worker", command, "eve")


def test_researcher_reads_with_the_dsn_that_is_printed(line: Line) -> None:
    dsn = line.pairmill("researcher", "add", "Ada").strip()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from report.pair").fetchone() == (0,)
    assert "there is a researcher 'Ada' already" in refusal(line, "researcher", "add", "Ada")


def test_researchers_are_listed_and_disabled(line: Line) -> None:
    assert "no researchers" in line.pairmill("researcher", "list")
    dsn = line.pairmill("researcher", "add", "Ada").strip()
    others = line.pairmill("researcher", "add", "Bob").strip()

    def listed() -> list[tuple[str, int, bool]]:
        found = json.loads(line.pairmill("researcher", "list", "--json"))
        return [(each["name"], each["sessions"], each["disabled"]) for each in found]

    with psycopg.connect(dsn) as session, psycopg.connect(others) as bob:
        session.execute("select * from report.queue")  # and its transaction stays open
        assert listed() == [("Ada", 1, False), ("Bob", 1, False)]
        assert "Ada is disabled" in line.pairmill("researcher", "disable", "Ada")
        with pytest.raises(psycopg.OperationalError):
            session.execute("select 1")
        assert bob.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(dsn)
    assert [(name, disabled) for name, _, disabled in listed()] == [("Ada", True), ("Bob", False)]
    assert "there is no researcher 'Eve'" in refusal(line, "researcher", "disable", "Eve")
    assert line.pairmill("researcher", "disable", "Ada", "--reason", "left")  # no error twice
    assert "left" in line.pairmill("researcher", "list")
    assert "that may log in" in refusal(line, "researcher", "rotate", "Ada")
    line.pairmill("researcher", "enable", "Ada")
    rotated = line.here("researcher", "rotate", "Ada", "--host", "127.0.0.1")
    with pytest.raises(psycopg.OperationalError):  # by the password of before
        psycopg.connect(dsn)
    port = psycopg.conninfo.conninfo_to_dict(dsn)["port"]
    assert f"@127.0.0.1:{port}/" in rotated.stdout
    with psycopg.connect(rotated.stdout.strip()) as session:
        session.execute("select * from report.queue")
    assert "this machine alone: for another one say --host HOST" in rotated.stderr


def test_sources(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "a.wat.gz"
    file.write_bytes(b"")
    assert (
        line.pairmill("wat", "add", str(file), "https://x.example/b.wat.gz")
        == "added 2 WAT files\n"
    )
    assert "1 were known already" in line.pairmill("wat", "add", str(file))
    assert "there is no file" in refusal(line, "wat", "add", str(tmp_path / "none"))
    paths = tmp_path / "wat.paths.gz"
    paths.write_bytes(
        gzip.compress(b"crawl-data/1.wat.gz\ncrawl-data/2.wat.gz\ncrawl-data/3.wat.gz\n")
    )
    line.pairmill("crawl", "add", "CC-MAIN-2024-51", "--paths", str(paths), "--limit", "2")
    found = json.loads(line.pairmill("wat", "list", "--json"))
    assert [w["crawl"] for w in found] == [None, None, "CC-MAIN-2024-51", "CC-MAIN-2024-51"]
    assert found[2]["location"] == "https://data.commoncrawl.org/crawl-data/1.wat.gz"
    assert "is no crawl's name" in refusal(line, "crawl", "add", "2024", "--paths", str(paths))
    assert "cannot read the list" in refusal(
        line, "crawl", "add", "CC-MAIN-2024-51", "--paths", "/none"
    )


def test_wat_that_is_broken_is_discarded_with_its_reason(line: Line, tmp_path: Path) -> None:
    page = tmp_path / "page.wat.gz"
    page.write_bytes(b"<html>not found</html>")
    cut = tmp_path / "cut.wat.gz"
    cut.write_bytes(
        gzip.compress(b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n")[:30]
    )
    line.pairmill("wat", "add", str(page), str(cut))
    gone = tmp_path / "gone.wat.gz"
    gone.write_bytes(b"")
    line.pairmill("wat", "add", str(gone))
    gone.unlink()
    line.drain("extract")
    discarded = json.loads(line.pairmill("task", "list", "--state", "discarded", "--json"))
    assert len(discarded) == 3
    reasons = " ".join(task["reason"] for task in discarded)
    for file in (page, cut, gone):
        assert file.name in reasons
    assert sum(reason["tasks"] for reason in line.status()["discarded"]) == 3
    assert "queued again (extract)" in line.pairmill("task", "retry", str(discarded[0]["task_id"]))
    assert "cannot be queued again" in refusal(line, "task", "retry", str(discarded[0]["task_id"]))
    line.pairmill("task", "discard", str(discarded[0]["task_id"]), "--why", "enough")
    assert "there is none such" in refusal(line, "task", "discard", "999")
    assert line.pairmill("task", "retry", "--all").count("queued again") == 3
    assert "name the tasks" in refusal(line, "task", "retry")


def test_wat_that_is_cut_off_or_damaged_keeps_the_rest(line: Line, tmp_path: Path) -> None:
    whole = io.BytesIO()
    site = build(drawn=False)
    write_wat(site.pages, whole)
    members = whole.getvalue()
    cut = tmp_path / "cut.wat.gz"
    cut.write_bytes(members[: len(members) * 2 // 3])
    # one record whose JSON is broken, between good ones
    first = members.index(b"\x1f\x8b\x08", 10)
    record = b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{'broken'\r\n\r\n"
    damaged = tmp_path / "damaged.wat.gz"
    damaged.write_bytes(members[:first] + gzip.compress(record) + members[first:])
    line.pairmill("wat", "add", str(cut), str(damaged), "--language-detector", "fasttext")
    steward = line.start("steward")
    line.drain("extract")
    steward.terminate()
    steward.wait()
    found = {
        Path(w["location"]).name: w for w in json.loads(line.pairmill("wat", "list", "--json"))
    }
    assert [w["state"] for w in found.values()] == ["done", "done"]
    assert found["cut.wat.gz"]["ended_early"]
    assert 0 < found["cut.wat.gz"]["links"] < len(site.links)
    assert found["damaged.wat.gz"]["links"] == len(site.links)
    assert found["damaged.wat.gz"]["bad_records"] == {"not_json": 1}
    status = line.status()
    assert status["bad_records"] == {"not_json": 1}
    assert sum(status["ended_early"].values()) == 1
    assert sum(status["pairs"].values()) == len(
        {k.url for k in site.links if isinstance(k.fate, Outcome)}
    )
    with psycopg.connect(line.environment["DATABASE_URL"]) as admin:
        pairs = set(admin.execute("select text, language from mill.pair"))
        by = set(admin.execute("select distinct language_detector from report.sample"))
    # of the detector that the file names, and not of the default
    told, others = (
        {(text, detector.detect(text)[0]) for text, _ in pairs}
        for detector in (LanguageDetector("fasttext"), LanguageDetector("cld3"))
    )
    assert (by, pairs) == ({("fasttext",)}, told)
    assert told != others


def test_models(line: Line) -> None:
    line.pairmill("model", "add", "--model", str(model.PATH), "--name", "small")
    (row,) = json.loads(line.pairmill("model", "list", "--json"))
    assert (row["name"], row["dims"], len(row["digest"])) == ("small", 64, 64)
    assert "no model 'ViT-B-23'" in refusal(line, "model", "add", "--model", "ViT-B-23")
    assert "needs weights" in refusal(line, "model", "add", "--model", "ViT-B-32")
    assert "is no file and no weights" in refusal(
        line, "model", "add", "--model", "ViT-B-32", "--pretrained", "nonsense"
    )


def test_model_that_the_database_does_not_know_cannot_score(line: Line) -> None:
    said = sentence(line.here("work", "score", "--model", str(model.PATH), "--drain"))
    assert "does not know a model with these weights" in said


def test_downloader_wants_a_contact_and_right_settings(line: Line) -> None:
    assert "PAIRMILL_CONTACT is not set" in refusal(line, "work", "download")
    line.environment |= {"PAIRMILL_CONNECT_TO": "localhost"}
    assert "PAIRMILL_CONNECT_TO must be host:port" in refusal(line, "work", "download")
    line.environment |= {"PAIRMILL_CONNECT_TO": "", "PAIRMILL_ALLOW_NETWORKS": "10/99"}
    assert "PAIRMILL_ALLOW_NETWORKS is wrong" in refusal(line, "work", "download")


def test_removals_and_releases(line: Line, tmp_path: Path) -> None:
    assert "1 would be added" in line.pairmill(
        "removal", "add", "http://a.example/x.jpg", "--dry-run"
    )
    assert line.pairmill("removal", "list") == "nothing is removed\n"
    line.pairmill("removal", "add", "http://a.example/x.jpg", "--reason", "asked for")
    assert json.loads(line.pairmill("removal", "list", "--json"))[0]["reason"] == "asked for"
    assert "is no http(s) URL" in refusal(line, "removal", "add", "nonsense")
    out = str(tmp_path / "release")
    assert "there is no recipe" in refusal(line, "release", "build", "none", "--out", out)
    assert "has no model ViT-B-32 openai" in refusal(
        line, "release", "build", "laion-400m", "--out", out
    )
    assert "unknown key" in refusal(line, "release", "build", "demo", "--out", out, "--set", "x=1")


def test_doctor_says_what_is_missing(line: Line, db: Database) -> None:
    done = line.run("doctor", "--json")
    assert done.returncode == 1
    wrong = [finding["text"] for finding in json.loads(done.stdout) if finding["ok"] is False]
    assert any("run `pairmill db secure`" in text for text in wrong)
    assert any("no model is known" in text for text in wrong)
    line.pairmill("db", "secure")
    db.add_model()
    assert line.run("doctor").returncode == 0


@pytest.mark.parametrize(
    "command", [("nosuch",), ("work",), ("release", "build"), ("status", "--nosuch")]
)
def test_wrong_usage_is_exit_code_2(line: Line, command: tuple[str, ...]) -> None:
    assert line.run(*command).returncode == 2


def test_workers_serve_their_metrics(db: Database, line: Line) -> None:
    db.extract([f"http://h{i}.example/{i}.jpg" for i in range(30)])
    db.close_batches()
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ports.append(taken.getsockname()[1])

    def read(port: int, path: str = "/metrics") -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with Web(lambda host, path: None).running() as web:
        line.environment |= web.environment
        line.start("steward", "--metrics", f"127.0.0.1:{ports[0]}")
        line.start("download", "--metrics", f"127.0.0.1:{ports[1]}")
        done = 'pairmill_worker_tasks_total{ended="done",kind="download"} 1.0'
        wait_until(lambda: done in read(ports[1]), "the batch")
        assert 'outcome="http_error"} 30.0' in read(ports[1])
        accepted = 'pairmill_worker_rows_total{kind="steward",outcome="download_accepted"} 30.0'
        wait_until(lambda: accepted in read(ports[0]), "its acceptance")
        ready = 'pairmill_queue{kind="download",what="ready"}'  # counted after what is accepted
        wait_until(lambda: ready in read(ports[0]), "the queue")
        assert read(ports[0], "/healthz") == read(ports[1], "/healthz") == "ok\n"
    refused = line.run("work", "steward", "--metrics", "nowhere")
    assert refused.returncode == 1
    assert "--metrics is HOST:PORT" in refused.stderr

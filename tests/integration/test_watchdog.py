"""The watchdog: workers' transactions that stay open are ended, whatever the steward waits for."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pairmill.schema.scripts import sql
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.steward.calls import StewardQueue
from pairmill.workers.steward.watchdog import EVERY_SECONDS, Watchdog
from support.console import console, logged_in
from support.database import Database
from support.line import Line, wait_until
from support.pages import browsing

IDLE_SECONDS = 15.0  # as in api.watchdog_v1
MARGIN = 3.0  # of a busy machine
Session = psycopg.Connection[Any]


def running(db: Database, session: Session) -> bool:
    return bool(db.rows("select from pg_stat_activity where pid = %s", session.info.backend_pid))


@pytest.fixture
def sessions() -> Iterator[Callable[[str], Session]]:
    opened: list[Session] = []

    def session(dsn: str) -> Session:
        opened.append(psycopg.connect(dsn, autocommit=True))
        return opened[-1]

    yield session
    for one in opened:
        one.close()


def idle_in_transaction(session: Session) -> Session:
    session.execute("set idle_in_transaction_session_timeout = 0")
    session.execute("begin")
    session.execute("select 1")
    return session


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[int | str | None]:
    """Who is idle in a transaction is ended at once. What each look found, or the error's name."""
    looks: list[int | str | None] = []

    def look(queue: StewardQueue) -> int | None:
        try:
            (found,) = queue._one("select api.watchdog_v1(0, 600)", ())
        except Exception as error:
            looks.append(type(error).__name__)
            raise
        looks.append(found)
        return None if found is None else int(found)

    monkeypatch.setattr(StewardQueue, "watchdog", look)
    return looks


@contextmanager
def watching(dsn: str) -> Iterator[Metrics]:
    metrics = Metrics("steward")
    watchdog = Watchdog(dsn, Progress("steward", metrics), every=0.02)
    watchdog.start()
    try:
        yield metrics
    finally:
        watchdog.stop()
        assert not watchdog.is_alive()


def test_a_steward_that_waits_for_a_worker_is_freed_by_its_watchdog(
    db: Database, tmp_path: Path, sessions: Callable[[str], Session]
) -> None:
    """With the true bounds, and the real steward: a migration waits for eve, the steward for the
    migration."""
    db.admin.execute(sql("secure"))
    db.extract(["http://a.example/1.jpg"])
    db.close_batches()
    eve, bob, migration = (
        sessions(db.login("download")),
        sessions(db.login("download")),
        sessions(db.dsn),
    )
    (instance,) = eve.execute("select instance_id from api.register_v1('0', 1)").fetchone() or (0,)
    line, dsn = Line(db.dsn, tmp_path), db.login("steward", "watching")
    login = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    theirs = "select count(*) from pg_stat_activity where usename = %s"
    try:
        steward = line.start("steward", "--dsn", dsn)
        wait_until(lambda: db.value(theirs, login) == 2, "the steward and its watchdog")
        eve.execute("set idle_in_transaction_session_timeout = 0")
        eve.execute("begin")
        eve.execute("select api.claim_v1(%s)", (instance,))
        begun = time.monotonic()
        with ThreadPoolExecutor() as pool:
            migration.execute("begin")
            migration.execute("set local lock_timeout = '60s'")
            lock = "lock table mill.worker in access exclusive mode"
            locked = pool.submit(migration.execute, lock)
            wait_until(
                lambda: db.value(
                    "select count(*) from pg_locks join pg_stat_activity using (pid)"
                    " where not granted and usename = %s", login,
                ) == 1,
                "the steward, which waits too",
            )  # fmt: skip
            wait_until(lambda: not running(db, eve), "the end of eve's session")
            assert (
                IDLE_SECONDS - 0.5
                <= time.monotonic() - begun
                <= IDLE_SECONDS + EVERY_SECONDS + MARGIN
            )
            locked.result(60)
        migration.execute("rollback")
        with pytest.raises(psycopg.OperationalError):
            eve.execute("select 1")
        assert bob.execute("select name from api.me_v1()").fetchone()
        # the steward works again, and a clean stop ends both of its sessions
        db.add_wat("another.wat")
        assert db.claim("extract")
        db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
        wait_until(
            lambda: db.value("select count(*) from mill.lease where ended_at is null") == 0,
            "the steward's next round",
        )
        steward.send_signal(signal.SIGTERM)
        _, said = steward.communicate(timeout=10)
        assert steward.returncode == 0, said
        assert "ended 1 sessions of workers with a transaction left open" in said
        wait_until(lambda: db.value(theirs, login) == 0, "the end of its sessions")
    finally:
        line.stop_all()


def test_without_rights_it_says_so_once_and_with_them_it_begins(
    db: Database,
    sessions: Callable[[str], Session],
    impatient: list[int | str | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    eve = idle_in_transaction(sessions(db.login("download")))
    with watching(db.login("steward")) as metrics:
        wait_until(lambda: len(impatient) >= 5, "some looks")
        assert set(impatient) == {None}
        assert running(db, eve)
        db.admin.execute(sql("secure"))
        wait_until(lambda: not running(db, eve), "the end of eve's session")
        wait_until(lambda: impatient[-1] == 0, "the next look")
    assert " ".join(capsys.readouterr().err.split()).count("pairmill db secure") == 1
    counted = metrics.registry.get_sample_value(
        "pairmill_worker_rows_total", {"kind": "steward", "outcome": "session_ended"}
    )
    assert counted == 1


def test_it_ends_workers_sessions_and_nobody_elses(
    db: Database, sessions: Callable[[str], Session], impatient: list[int | str | None]
) -> None:
    db.admin.execute(sql("secure"))
    name = db.admin.info.dbname
    # an admin without superuser: a member of the owner, and of the groups that it made
    db.admin.execute(
        cast(
            LiteralString,
            f"create role {name}_admin login password 'secret' in role {db.group('owner')}, {db.group('download')}",
        )
    )
    db.admin.execute("select mill.add_researcher(%s, 'Ada', 'secret')", (f"{name}_ada",))
    spared = [
        idle_in_transaction(sessions(dsn))
        for dsn in (
            db.dsn, db.login("steward", "another"), make_conninfo(db.dsn, user=f"{name}_admin", password="secret"),
            make_conninfo(db.dsn, user=f"{name}_ada", password="secret"),
        )
    ]  # fmt: skip
    idle = sessions(db.login("download"))
    idle.execute("select 1")
    ended = [
        idle_in_transaction(sessions(db.login(kind))) for kind in ("extract", "download", "score")
    ]
    with pytest.raises(psycopg.errors.SyntaxError):
        idle_in_transaction(sessions(db.login("download", "aborted"))).execute("nonsense")
    assert db.queue("steward")[0].watchdog() == 4
    for session in ended:
        wait_until(lambda session=session: not running(db, session), "its end")  # type: ignore[misc]
    assert all(running(db, session) for session in [*spared, idle])
    assert db.queue("steward")[0].watchdog() == 0
    idle.execute("select 1")
    log = db.rows("select worker, state, seconds >= 0 from report.ended_session order by worker")
    assert [row[1:] for row in log] == [("idle in transaction (aborted)", True)] + [
        ("idle in transaction", True)
    ] * 3
    assert log[0][0] == "aborted"
    assert None not in {row[0] for row in log}
    app = console(db)
    with browsing(app) as client:
        page = logged_in(str(client.base_url), db).get("/").text
    log_of_page = page.partition("Ended by the watchdog")[2].partition("</section>")[0]
    assert log_of_page.count("idle in transaction") == 4
    assert 'href="/worker?name=aborted"' in log_of_page


def test_a_session_ends_also_where_its_note_must_wait(
    db: Database, sessions: Callable[[str], Session], impatient: list[int | str | None]
) -> None:
    """Would catch: a watchdog that a migration, which waits for eve, holds up. And a log that grows
    for ever."""
    db.admin.execute(sql("secure"))
    steward, _ = db.queue("steward")
    eve = idle_in_transaction(sessions(db.login("download")))
    with db.admin.transaction():
        db.admin.execute("lock table mill.ended_session in access exclusive mode")
        assert steward.watchdog() == 1
    wait_until(lambda: not running(db, eve), "the end of eve's session")
    assert db.rows("select from report.ended_session") == []
    db.admin.execute(
        "insert into mill.ended_session (ended_session_id, at, login, state, seconds)"
        " overriding system value select id, now() - make_interval(days => d), 'eve', 'active', 601"
        " from (values (90001, 31), (90002, 29), (80002, 1)) t (id, d)"
    )
    steward.maintain("sweep_inbox")
    assert db.rows("select worker, state, seconds from report.ended_session") == [
        (None, "active", 601)
    ]


def test_its_own_connection_may_end_and_its_database_be_old(
    db: Database, sessions: Callable[[str], Session], impatient: list[int | str | None]
) -> None:
    db.admin.execute(sql("secure"))
    dsn = db.login("steward")
    login = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    function, group = "function api.watchdog_v1", db.group("steward")
    with watching(dsn):
        for trouble, seen, mend in (
            (f"alter {function} rename to away", "Refused", "alter function api.away rename to watchdog_v1"),
            (f"revoke execute on {function} from {group}", "InsufficientPrivilege", f"grant execute on {function} to {group}"),
        ):  # fmt: skip
            db.admin.execute(cast(LiteralString, trouble))
            wait_until(lambda seen=seen: impatient[-1:] == [seen], seen)  # type: ignore[misc]
            eve = idle_in_transaction(sessions(db.login("download")))
            db.admin.execute(cast(LiteralString, mend))
            wait_until(lambda eve=eve: not running(db, eve), "the end of eve's session")  # type: ignore[misc]
        ended = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = %s"
        assert db.rows(ended, login) == [(True,)]
        eve = idle_in_transaction(sessions(db.login("download")))
        wait_until(lambda: not running(db, eve), "the end of eve's session")


def test_the_doctor_says_what_is_missing(db: Database) -> None:
    def missing() -> set[str]:
        return {what for (what,) in db.rows(sql("doctor"))}

    db.login("download")
    transactions = "keep a transaction open"
    files = "fill the disk with temporary files"
    owner = db.group("owner")
    db.admin.execute("update mill.worker set disabled_at = null")
    db.admin.execute(cast(LiteralString, f"alter role {db.value('select login from mill.worker')} reset temp_file_limit"))  # fmt: skip
    assert {transactions, files} <= missing()
    db.admin.execute(sql("secure"))
    assert missing() == set()
    for right in ("pg_signal_backend", "pg_read_all_stats"):
        db.admin.execute(cast(LiteralString, f"revoke {right} from {owner}"))
        assert missing() == {transactions}
        assert db.queue("steward")[0].watchdog() is None
        db.admin.execute(cast(LiteralString, f"grant {right} to {owner}"))

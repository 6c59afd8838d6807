"""Going down says what it loses, by count, whatever the revisions declare, and leaves no login."""

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pairmill import migrations
from pairmill.migrations import snapshot
from pairmill.ops.admin import downgrade, migrate
from pairmill.ops.errors import UserError
from support.database import Database, empty_database
from support.line import Line, sentence

RELEASES = Path(__file__).parent / "losing_releases"


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The code is that of a release at 0003; releases had 0001 and 0002, with the same routines but
    without stewards."""
    file = snapshot.write(tmp_path)
    text = gzip.decompress(file.read_bytes()).decode()
    older = text.replace("'extract,download,score,steward'", "'extract,download,score'")
    assert older != text
    file.write_bytes(gzip.compress(older.encode()))
    shutil.copy(tmp_path / "0001.sql.gz", tmp_path / "0002.sql.gz")
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, RELEASES])
    monkeypatch.setattr(migrations, "SNAPSHOTS", [tmp_path])


@contextmanager
def newest(server: str, revision: str) -> Iterator[Database]:
    """A database at a revision, without rows of its own."""
    with pytest.MonkeyPatch.context() as patch, empty_database(server) as dsn:
        patch.setattr(migrations, "VERSIONS", [migrations.VERSIONS[0]])
        migrate.upgrade(dsn)
        patch.undo()
        migrate.upgrade(dsn, revision)
        database = Database(dsn)
        yield database
        database.close()


def fill(db: Database) -> dict[str, str]:
    """Rows that 0001 cannot hold. Returns the logins of a curator and a steward."""
    db.extract([f"http://h{i}.example/{i}.jpg" for i in range(5)])
    db.close_batches()
    db.download()
    db.admin.execute("update mill.download set outcome = 99 where n < 3")
    db.admin.execute("insert into mill.note select n, 'x' from generate_series(1, 7) n")
    db.admin.execute("insert into mill.crawl (name, label) values ('a', 'none'), ('b', 'mine')")
    db.admin.execute("insert into mill.task (kind, state, wat_id) select 'caption', s, wat_id"
                     " from mill.wat_file, unnest('{done}'::text[]) s")  # fmt: skip
    db.add_wat("b.wat.gz")
    db.admin.execute(
        "insert into mill.task (kind, wat_id) select 'caption', wat_id from mill.wat_file where location = 'b.wat.gz'"
    )
    curator = f"{db.admin.info.dbname}_c"
    db.admin.execute(f"create role {curator} login password 'secret'")
    db.admin.execute("insert into mill.curator values (%s, 'Ada')", (curator,))
    (steward,) = db.rows("select login from mill.worker where kind = 'steward'")[0]
    db.admin.execute(
        "insert into mill.worker (login, name, kind) values ('gone', 'gone', 'steward')"
    )
    return {"curator": curator, "steward": steward}


LOSSES = {
    (7, "rows of mill.note, which is dropped", False),
    (1, "rows of mill.curator, which is dropped", False),
    (1, "values of mill.crawl.label, a column that is dropped", False),
    (2, "values of mill.crawl.name that become character varying(40) and were text", False),
    (11, "rows of mill.drop_reason that are deleted", False),
    (3, "rows of mill.download that are changed, and revision 0002 does not say why", True),
    (5, "rows of mill.seen_url that are deleted, and revision 0002 does not say why", True),
    (3, "downloads that ended as asked_to_wait, which the older code does not know", True),
    (2, "tasks of kind caption, which the older code does not know", True),
}  # fmt: skip


def said(chosen: downgrade.Plan) -> set[tuple[int, str, bool]]:
    return {(loss.count, loss.what, loss.refused) for loss in chosen.losses}


def state(db: Database) -> dict[str, object]:
    """What a rehearsal must leave as it was."""
    tables = ("note", "curator", "crawl", "download", "seen_url", "drop_reason", "task", "worker")
    rows = {t: db.rows(f"select to_jsonb(t) from mill.{t} t order by 1") for t in tables}
    return rows | {"roles": db.rows("select rolname, rolcanlogin from pg_roles order by 1")}


def test_a_revision_that_says_nothing_loses_nothing_in_silence(
    server: str, releases: None, tmp_path: Path
) -> None:
    """Would catch: a column's values, a table's rows, outcomes or tasks that are gone without a
    word, and a login that works although no list has it."""
    with newest(server, "0002") as db:
        login = fill(db)
        before = state(db)
        chosen = downgrade.plan(db.dsn, "0001")
        reasons = db.value("select count(*) from mill.drop_reason")
        assert said(chosen) == {
            (reasons if "drop_reason" in what else count, what, refused)
            for count, what, refused in LOSSES
        }
        assert chosen.logins == {
            login["curator"]: "Ada of mill.curator", login["steward"]: "steward-2 of mill.worker",
        }  # fmt: skip
        assert chosen.unknown_kinds == ["caption"]
        assert state(db) == before

        line = Line(db.dsn, tmp_path / "home")
        down = ("migrate", "--to", "0001")
        shown = json.loads(line.pairmill(*down, "--dry-run", "--json"))
        assert {tuple(loss.values()) for loss in shown["losses"]} == said(chosen)
        assert shown["logins"] == chosen.logins
        assert shown["backup"].startswith("pg_dump -Fc --file pairmill-0002.dump --dbname '")
        assert f"dbname={db.admin.info.dbname}" in shown["backup"]
        assert "password" not in shown["backup"]
        text = line.pairmill(*down, "--dry-run")
        assert (
            "going down from revision 0002 to 0001 loses\n  rows of mill.curator, which is dropped: 1\n"
            in text
        )
        assert f"which end:\n  {login['curator']}: Ada of mill.curator\n" in text
        for options, says in (
            ((), "revision 0001 cannot hold all of it, and nothing was changed: --force"),
            (("--yes",), "revision 0001 cannot hold all of it"),
            (("--force",), "not confirmed, nothing was done: --yes"),
        ):
            done = line.here(*down, *options)
            assert (done.returncode, says in done.stderr) == (1, True), done.stderr
            assert state(db) == before

        working = psycopg.connect(make_conninfo(db.dsn, user=login["curator"], password="secret"))
        assert "schema at revision 0001, was 0002" in line.pairmill(*down, "--force", "--yes")
        with pytest.raises(psycopg.OperationalError):  # the session was ended
            working.execute("select 1")
        for name in login.values():
            with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
                psycopg.connect(make_conninfo(db.dsn, user=name, password="secret"))
        states = "select state, reason from mill.task where kind = 'caption' order by task_id"
        why = "the older revision does not know its kind"
        assert db.rows(states) == [("done", None), ("discarded", why)]


def test_a_revision_that_declares_is_believed_and_told(server: str, releases: None) -> None:
    """Would catch: a renamed or carried column that is called lost, and a declared loss that is
    not said; and that of two steps only one is looked at."""
    with newest(server, "0003") as db:
        db.admin.execute("insert into mill.crawl (name, title) values ('a', 'mine')")
        db.admin.execute("insert into mill.note_line values (1, 'a'), (2, ''), (3, 'b')")
        one = downgrade.plan(db.dsn, "0002")
        assert said(one) == {
            (3, "line breaks of notes", False), (1, "empty lines of notes", True),
        }  # fmt: skip
        two = said(downgrade.plan(db.dsn, "0001"))
        assert said(one) <= two
        # the rows that the first step has made are the second's to lose, and were not there before
        assert (
            1,
            "values of mill.crawl.name that become character varying(40) and were text",
            False,
        ) in two
        downgrade.downgrade(db.dsn, one)
        assert db.rows("select note_id, body from mill.note order by 1") == [(1, "a"), (3, "b")]
        assert db.rows("select name, label from mill.crawl") == [("a", "mine")]
        with pytest.raises(UserError, match="another migration came first"):
            downgrade.downgrade(db.dsn, one)


def test_where_a_migration_goes_is_said_clearly(
    server: str, releases: None, tmp_path: Path
) -> None:
    with newest(server, "0002") as db:
        line = Line(db.dsn, tmp_path / "home")
        assert "would go from 0002 to revision 0003; nothing is lost" in line.pairmill(
            "migrate", "--dry-run"
        )
        assert db.value("select version_num from mill.migration") == "0002"
        assert "schema at revision 0002 already" in line.pairmill("migrate", "--to", "0002")
        assert "there is nothing to do" in line.pairmill("migrate", "--to", "0002", "--dry-run")
        known = "known are 0001, 0002, 0003"
        unknown = sentence(line.here("migrate", "--to", "latest"))
        assert unknown == f"pairmill: there is no revision 'latest': {known}"
        newer = sentence(line.here("migrate", "--to", "0009"))
        assert newer.endswith(f"{known}: a newer one needs a newer pairmill")
        for migration in migrations.SNAPSHOTS:
            (migration / "0001.sql.gz").unlink()
        unreleased = sentence(line.here("migrate", "--to", "0001", "--yes"))
        assert "no release of pairmill had revision '0001'" in unreleased
        # a database with no rows loses none, and is asked for all the same
        for migration in migrations.SNAPSHOTS:
            shutil.copy(migration / "0002.sql.gz", migration / "0001.sql.gz")
        said = line.pairmill("migrate", "--to", "0001", "--dry-run")
        assert "rows of mill.drop_reason that are deleted" in said
        assert db.value("select version_num from mill.migration") == "0002"

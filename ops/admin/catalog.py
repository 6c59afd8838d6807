"""What a change of the tables did to the data in them, read from the catalogs before and after."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from pairmill.migrations.losses import Loss
from pairmill.ops.queries import query_text, rows

Session = psycopg.Connection[Any]


@dataclass(frozen=True)
class Count:
    """A count that is still to be made: a query of one number, and the loss that it is of."""

    query: Composed
    what: str
    refused: bool = False

    def made(self, connection: Session) -> Loss:
        row = connection.execute(self.query).fetchone()
        assert row is not None
        return Loss(int(row[0]), self.what, self.refused)


@dataclass(frozen=True)
class Catalog:
    """columns: by table and number, neither of which changes by a renaming. tables: with
    partitions, by number. logins: that some table knows, with their owners' names."""

    columns: dict[tuple[int, int], dict[str, Any]]
    tables: dict[int, dict[str, Any]]
    logins: dict[str, str]

    def root(self, number: int) -> str:
        """The name of a table, or of the one that it is a partition of."""
        return str(self.tables[self.tables[number]["root"]]["name"])


def script(name: str) -> str:
    """The text of sql/downgrade/<name>.sql."""
    return query_text("admin", f"downgrade/{name}")


def dictionaries(connection: Session, name: str) -> list[dict[str, Any]]:
    """The rows of sql/downgrade/<name>.sql."""
    return rows(connection, script(name))


def read(connection: Session) -> Catalog:
    columns = dictionaries(connection, "columns")
    tables = dictionaries(connection, "tables")
    logins: dict[str, str] = {}
    for (table,) in connection.execute(script("login_tables")).fetchall():
        rows = connection.execute(
            SQL("select login, to_jsonb(t) ->> 'name' from {} t").format(_name(table))
        )
        logins |= {login: f"{name or 'somebody'} of {table}" for login, name in rows.fetchall()}
    return Catalog(
        {(c["relation"], c["number"]): c for c in columns},
        {t["relation"]: t for t in tables},
        logins,
    )


def _name(table: str) -> SQL:
    return SQL(table)  # quoted by the query that gave it


def lost(
    connection: Session, before: Catalog, after: Catalog, carried: Collection[str]
) -> Iterator[Count]:
    """What is to be counted before the change to know its losses. connection: after the change.
    carried: tables and columns whose data is kept elsewhere."""
    yield from _lost_tables(before, after, carried)
    yield from _lost_columns(before, after, carried)
    for number, table in after.tables.items():
        was = before.tables.get(number)
        if was and was["storage"] != table["storage"] and was["name"] not in carried:
            row = connection.execute(
                SQL("select count(*) from {}").format(_name(table["name"]))
            ).fetchone()
            assert row is not None
            query = SQL("select greatest(0, count(*) - {}) from {}").format(
                row[0], _name(was["name"])
            )
            yield Count(query, f"rows of {before.root(number)} that are deleted")


def _lost_tables(before: Catalog, after: Catalog, carried: Collection[str]) -> Iterator[Count]:
    for number, table in before.tables.items():
        root = before.tables[table["root"]]
        of_a_table_that_goes = table is not root and root["relation"] not in after.tables
        if number in after.tables or of_a_table_that_goes or root["name"] in carried:
            continue
        what = f"rows of {table['name']}, which is dropped"
        yield Count(SQL("select count(*) from {}").format(_name(table["name"])), what)


def _lost_columns(before: Catalog, after: Catalog, carried: Collection[str]) -> Iterator[Count]:
    for place, column in before.columns.items():
        name = f"{column['table']}.{column['name']}"
        if column["relation"] not in after.tables or {name, column["table"]} & set(carried):
            continue
        now = after.columns.get(place)
        if now is None:
            yield Count(_values(column), f"values of {name}, a column that is dropped")
        elif now["type"] != column["type"]:
            what = f"values of {name} that become {now['type']} and were {column['type']}"
            yield Count(_values(column, set_by_hand=False), what)


def _values(column: dict[str, Any], *, set_by_hand: bool = True) -> Composed:
    """The query that counts a column's values; with set_by_hand, those that are not its default."""
    default = column["default"]
    name, table = Identifier(column["name"]), _name(column["table"])
    # a default that calls a function, now() say, is another for each row
    if not set_by_hand or default is None or re.search(r"\(", default):
        return SQL("select count({}) from {}").format(name, table)
    changed = SQL("{} is distinct from ({})").format(name, _name(default))
    return SQL("select count(*) filter (where {}) from {}").format(changed, table)

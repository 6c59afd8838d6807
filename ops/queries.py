"""The SQL files of the rooms, and rows as dictionaries."""

from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import dict_row


def query_text(room: str, name: str) -> str:
    """The text of ops/ROOM/sql/NAME.sql. name may lie in a folder below: watch/queue."""
    return (files("pairmill.ops") / room / "sql" / f"{name}.sql").read_text("utf-8")


def rows(
    connection: psycopg.Connection[Any], query: str, *arguments: Any, **named: Any
) -> list[dict[str, Any]]:
    """The rows of a query, as dictionaries by column name. It is given either the arguments of its
    %s, in order, or those of its %(name)s; without any, a % in it is a %."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, named or arguments or None).fetchall()

"""Helpers that declare tables: each column has a comment, and is NOT NULL unless told otherwise."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import conv
from sqlalchemy.types import TypeEngine, UserDefinedType

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)
TIMESTAMP = DateTime(timezone=True)
NOW = text("now()")


class Name(UserDefinedType[str]):
    """PostgreSQL's ``name``, the type of ``session_user``."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "name"


def col(
    name: str, kind: TypeEngine[Any] | type, comment: str, *args: Any, **kw: Any
) -> Column[Any]:
    """A column that is NOT NULL unless told otherwise, and never without a comment."""
    kw.setdefault("nullable", False)
    return Column(name, kind, *args, comment=comment, **kw)


def identity(name: str, comment: str, kind: type = BigInteger) -> Column[Any]:
    return col(name, kind, comment, Identity(always=True), primary_key=True)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} in ({', '.join(repr(v) for v in values)})", name=column)


# of a regular expression: C0, DEL, C1, Unicode's Bidi_Control, separators of lines and paragraphs;
# mill.plain and workers/safe_text.py have the same
CONTROLS = r"\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
# jsonb's text has C0 as escapes; line ends, tabs and form feeds are part of a JSON text
_JSON_CONTROLS = rf"(^|[^\\])(\\\\)*\\u00|[{CONTROLS}]"


def plain(*columns: Column[Any]) -> CheckConstraint:
    """No control characters in columns of text, or in one of arrays or of JSON. Of several columns
    one expression: each costs 2 us a row. The constraint's name is the words of the error."""
    names = [column.name for column in columns]
    forbidden, shown, called = f"[{CONTROLS}]", names[0], f"no control characters in {names[0]}"
    if isinstance(columns[0].type, JSONB):
        forbidden, shown = _JSON_CONTROLS, f"{shown}::text"
    elif isinstance(columns[0].type, ARRAY):
        shown = f"array_to_string({shown}, '')"
    elif len(names) > 1:
        shown, called = f"concat({', '.join(names)})", "no control characters"
    return CheckConstraint(f"{shown} !~ '{forbidden}'", name=conv(called))


def _item_type(column: Column[Any]) -> TypeEngine[Any]:
    return column.type.item_type if isinstance(column.type, ARRAY) else column.type


def open_columns(columns: Iterable[Any]) -> list[Column[Any]]:
    """The columns into which any text may be written: text, arrays of it or JSON, whose values are
    no closed list's, no other table's and not computed. info={"plain": False}: not this one."""
    return [
        each
        for each in columns
        if isinstance(each, Column)
        and isinstance(_item_type(each), Text | JSONB)
        and not (each.foreign_keys or each.computed or each.constraints)
        and each.info.get("plain", True)
    ]


def mill(name: str, comment: str, *columns: Any, **kw: Any) -> Table:
    """A table of schema mill, whose columns of text take no control characters. Partitioned tables
    have no such checks (2 us a row and column): what is inserted there was checked in an inbox or
    a submission."""
    unchecked = "postgresql_partition_by" in kw
    checks = [] if unchecked else [plain(each) for each in open_columns(columns)]
    return Table(name, metadata, *columns, *checks, schema="mill", comment=comment, **kw)

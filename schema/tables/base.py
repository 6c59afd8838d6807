"""Helpers that declare tables: each column has a comment, and is NOT NULL unless told otherwise."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    MetaData,
    Table,
    text,
)
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


def mill(name: str, comment: str, *columns: Any, **kw: Any) -> Table:
    return Table(name, metadata, *columns, schema="mill", comment=comment, **kw)

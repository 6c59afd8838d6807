"""The SQL files of the schema."""

from importlib.resources import files


def sql(name: str) -> str:
    """The text of schema/sql/<name>.sql."""
    return (files("pairmill.schema") / "sql" / f"{name}.sql").read_text("utf-8")

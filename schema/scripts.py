"""The SQL files of the schema."""

from importlib.resources import files


def script(path: str) -> str:
    """The text of schema/<path>."""
    return (files("pairmill.schema") / path).read_text("utf-8")


def sql(name: str) -> str:
    """The text of schema/sql/<name>.sql."""
    return script(f"sql/{name}.sql")

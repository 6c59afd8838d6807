"""How a database gets to the schema: Alembic revisions, each with its SQL frozen beside it."""

from importlib.resources import files


def script(name: str) -> str:
    """The text of migrations/versions/<name>.sql."""
    return (files("pairmill.migrations") / "versions" / f"{name}.sql").read_text("utf-8")

"""How the tables of a database change: Alembic revisions, with functions and views made anew.

A revision holds what happens to tables and rows, and nothing else: ``upgrade()`` and
``downgrade()`` with the DDL and, where rows need them, ``post(connection)``, which may call the
functions of the new release. Between the two every routine is dropped and made again from
``schema/sql``; on the way down, from the snapshot that the older release left in ``routines/``
(``python -m pairmill.migrations.snapshot``).
"""

import gzip
from importlib.resources import files
from pathlib import Path

HERE = Path(str(files("pairmill.migrations")))
VERSIONS = [HERE / "versions"]
SNAPSHOTS = [HERE / "routines"]


def script(name: str) -> str:
    """The text of migrations/<name>.sql."""
    return (HERE / f"{name}.sql").read_text("utf-8")


def revisions() -> list[str]:
    """The names of all revisions, oldest first: what their files' names begin with. (Alembic would
    say the same, and its import takes a second: each command asks.)"""
    return sorted(
        file.name.partition("_")[0] for folder in VERSIONS for file in folder.glob("[0-9]*_*.py")
    )


def released_routines(revision: str) -> str | None:
    """The routines of the newest release with this revision; None where there was none."""
    for folder in SNAPSHOTS:
        if (file := folder / f"{revision}.sql.gz").exists():
            return gzip.decompress(file.read_bytes()).decode()
    return None

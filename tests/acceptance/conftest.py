"""Fixtures: a migrated database, and the command that works on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.database import Database, say_migrated
from support.line import Line


@pytest.fixture
def line(db: Database, tmp_path: Path) -> Iterator[Line]:
    """The command on the test's database; its workers are ended after the test."""
    say_migrated(db.admin)
    line = Line(db.dsn, tmp_path / "home")
    yield line
    line.stop_all()

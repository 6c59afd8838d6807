"""Fixtures: a migrated database, and the command that works on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database
from line import Line

from pairmill.ops import migrate


@pytest.fixture
def line(db: Database, tmp_path: Path) -> Iterator[Line]:
    """The command on the test's database; its workers are ended after the test."""
    # the schema was made directly: say so, as the migrations would have
    db.admin.execute("create table mill.migration (version_num varchar(32) not null)")
    db.admin.execute("insert into mill.migration values (%s)", (migrate.revisions()[-1],))
    line = Line(db.dsn, tmp_path / "home")
    yield line
    line.stop_all()

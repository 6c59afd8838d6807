"""Workers of an older release, as it was installed, against the schema of the next."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pairmill.ops.admin import migrate
from pairmill.workers.download.worker import ROWS_PER_PART
from support.database import Database, empty_database
from support.installing import copied, install
from support.line import Line, Web, wait_until

URLS = ROWS_PER_PART + 200


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A folder with an installed release. There is none before this tree's, so it is this tree's;
    from the second release on, the first one's wheel is the one to take."""
    target = tmp_path / "older"
    install(copied(tmp_path / "tree"), target)
    return target


def test_a_download_that_is_under_way_goes_on_through_a_migration(
    server: str, wheel: Path, tmp_path: Path, release_next: Callable[[], None]
) -> None:
    """Would catch: a function that older workers call, dropped or changed by a migration."""
    with empty_database(server) as dsn:
        migrate.upgrade(dsn)
        db = Database(dsn)
        db.add_model()
        db.extract([f"http://h{i % 40}.example/{i}.jpg" for i in range(URLS)])
        db.close_batches()
        line = Line(dsn, tmp_path / "home")
        line.environment["PYTHONPATH"] = str(wheel)
        where = [sys.executable, "-c", "import pairmill; print(pairmill.__file__)"]
        found = subprocess.check_output(where, env=line.environment, text=True)
        assert found.startswith(str(wheel))
        with Web(lambda host, path: None).running() as web:
            line.environment |= web.environment
            web.hold = lambda path: len(web.asked) > ROWS_PER_PART + 120
            download = line.start("download", "--drain", "--agree", "--dsn", db.login("download"))
            steward = line.start("steward", "--drain", "--dsn", db.login("steward"))
            assert web.held.wait(120)
            part = "select count(*) from mill.submission_download"
            wait_until(lambda: db.value(part) == 1, "the first part")

            release_next()
            migrate.upgrade(dsn)
            assert db.value("select max(version_num) from mill.migration") == "0002"

            web.hold = lambda path: False
            web.release.set()
            for worker in (download, steward):
                _, said = worker.communicate(timeout=120)
                assert worker.returncode == 0, said
        line.stop_all()
        assert db.rows("select n from mill.download order by n") == [(n,) for n in range(URLS)]
        wait_until(
            lambda: db.value("select count(*) from mill.lease where ended_at is null") == 0,
            "its end",
        )
        assert db.rows("select ended_as from mill.lease") == [("completed",), ("completed",)]
        db.close()

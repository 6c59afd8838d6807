"""The code of a next release: a revision more, and other routines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pairmill import migrations
from pairmill.migrations import snapshot
from pairmill.schema import routines

NEXT_RELEASE = Path(__file__).parent / "next_release"
NEW_ROUTINES = """
create function mill.noted(p_batch_id bigint) returns text language sql return 'batch ' || p_batch_id;
create view report.note as select batch_id, note from mill.batch;
"""


@pytest.fixture
def release_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A call of it makes the code that of the next release: a revision more, other routines."""
    old = routines._body()
    # what CREATE OR REPLACE refuses: a result of another type, a column that goes
    new = old.replace(
        "mill.unfinished(p_worker_id integer) returns bigint",
        "mill.unfinished(p_worker_id integer) returns numeric",
    )
    new = new.replace(
        "select code, name, retry from mill.outcome;", "select code, name from mill.outcome;"
    )
    new = new.replace(
        "comment on column report.outcome.retry is", "comment on view report.outcome is"
    )
    assert len({old, new}) == 2
    snapshot.write(tmp_path)

    def released() -> None:
        monkeypatch.setattr(routines, "_body", lambda: new + NEW_ROUTINES)
        monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, NEXT_RELEASE])
        monkeypatch.setattr(migrations, "SNAPSHOTS", [tmp_path])

    return released

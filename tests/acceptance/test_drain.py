"""``--drain`` says what it waits for, where it cannot end by itself."""

import subprocess
from pathlib import Path

from support.database import Database
from support.line import PATIENCE, Line, said
from support.wats import image, packed, page


def ended(worker: subprocess.Popen[str]) -> str:
    _, errors = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, errors
    return errors


def test_workers_that_are_to_drain_say_what_they_wait_for(
    line: Line, db: Database, tmp_path: Path
) -> None:
    path = tmp_path / "a.wat.gz"
    # no image: nothing for a downloader to fetch
    path.write_bytes(packed([page("http://p.example/", [image("a.svg", "A drawing")])]))
    line.environment |= {"PAIRMILL_CONTACT": "test"}
    line.pairmill("wat", "add", str(path))
    steward = line.start("steward", "--drain")
    download = line.start("download", "--drain", "--agree")
    assert "--drain waits for extract tasks (1 ready) (do workers" in said(steward, "waits for")
    assert "download tasks, and tasks that lead to such" in said(download, "waits for")
    steward.terminate()
    steward.wait()

    extract = line.start("extract", "--drain")
    assert "done" in said(extract, "task")
    waits = said(extract, "waits for")
    assert "--drain waits for extract tasks" in waits
    assert "not yet accepted by a steward (is one running? pairmill work steward)" in waits
    assert db.value("select state from mill.task") == "submitted"

    steward = line.start("steward", "--drain")
    for worker in (steward, extract, download):
        assert "nothing left to do\n" in ended(worker)

"""Workers that die or are stopped in the middle: nothing is lost, nothing is counted twice."""

import signal
import socket
from pathlib import Path

import pytest

from pairmill.ops.demo.serve import folder_answers
from pairmill.ops.demo.site import File, build
from pairmill.ops.demo.wat import write_wat
from pairmill.workers.download.worker import ROWS_PER_PART
from support.database import Database
from support.line import Line, Web, lose_leases, wait_until

URLS = ROWS_PER_PART + 200


def not_found(host: str, path: str) -> File | None:
    return None


def images(web: Web) -> set[tuple[str, str]]:
    """What was asked for and is not a host's robots.txt or the like."""
    return {key for key in list(web.asked) if key[1].endswith(".jpg")}


@pytest.fixture
def wat(tmp_path: Path) -> Path:
    path = tmp_path / "site.wat.gz"
    with path.open("wb") as out:
        write_wat(build(drawn=False).pages, out)
    return path


def test_killed_download_is_finished_by_another(db: Database, line: Line) -> None:
    db.extract([f"http://h{i % 40}.example/{i}.jpg" for i in range(URLS)])
    assert db.close_batches() == 1
    # the first part goes through; then the web stands still
    with Web(not_found).running() as web:
        line.environment |= web.environment
        web.hold = lambda path: len(images(web)) > ROWS_PER_PART + 20
        first = line.start("download")
        submitted = "select count(*) from mill.submission_download"
        wait_until(lambda: db.value(submitted) == 1, "the first part")
        assert web.held.wait(60)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = images(web)
        web.hold = lambda path: False
        web.release.set()

        lose_leases(db.admin)
        db.add_model()
        line.drain("steward", "download")

    assert db.value("select count(*) from mill.download") == URLS
    assert db.rows("select n from mill.download order by n") == [(n,) for n in range(URLS)]
    assert line.status()["fetched"] == {"http_error": URLS}
    # what had been submitted was not fetched a second time
    assert sum(web.asked[key] == 2 for key in before) == len(before) - ROWS_PER_PART
    assert db.rows("select ended_as from mill.lease order by lease_id") == [
        ("completed",), ("expired",), ("completed",),
    ]  # fmt: skip


def test_killed_extraction_is_done_again_and_counted_once(
    db: Database, line: Line, wat: Path
) -> None:
    with Web(folder_answers(wat.parent)).running() as web:
        web.hold = lambda path: True
        line.pairmill("wat", "add", f"http://127.0.0.1:{web.port}/{wat.name}")
        first = line.start("extract")
        assert web.held.wait(60)
        # as if it had died between its COPY and its submission
        (lease,) = db.rows("select lease_id from mill.lease where ended_at is null")[0]
        db.admin.execute(
            "insert into inbox.pair"
            " select %s, login, 0, md5('http://x/')::uuid, 'http://x/', 'orphan', null, 0, null"
            " from mill.worker where kind = 'extract'",
            (lease,),
        )
        first.send_signal(signal.SIGKILL)
        first.wait()
        web.hold = lambda path: False
        web.release.set()
        lose_leases(db.admin)
        line.environment |= {"PAIRMILL_CONTACT": "test"}
        steward = line.start("steward")
        line.drain("extract")
        steward.send_signal(signal.SIGTERM)
        steward.communicate()

    links = build(drawn=False).links
    status = line.status()
    assert status["links"] == len(links)
    assert status["links"] == sum(status["dropped"].values()) + status["duplicates"] + sum(
        status["pairs"].values()
    )
    assert db.value("select count(*) from mill.pair where text = 'orphan'") == 0
    assert db.queue("steward")[0].maintain("sweep_inbox") in (0, 1)
    assert db.value("select count(*) from inbox.pair") == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_worker_hands_its_lease_back(db: Database, line: Line, how: signal.Signals) -> None:
    db.extract([f"http://h{i}.example/{i}.jpg" for i in range(10)])
    db.close_batches()
    with Web(not_found).running() as web:
        line.environment |= web.environment
        web.hold = lambda path: True
        worker = line.start("download")
        assert web.held.wait(60)
        worker.send_signal(how)
        _, errors = worker.communicate(timeout=30)
    assert worker.returncode == 0, errors
    assert "handed back" in errors
    assert "Traceback" not in errors
    assert db.rows("select state, attempts from mill.task where kind = 'download'") == [
        ("ready", 0)
    ]
    assert db.rows("select ended_as from mill.lease order by lease_id desc limit 1") == [
        ("released",)
    ]


def test_worker_that_is_stopped_before_its_database_answers_just_ends(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        worker = line.start("extract", "--dsn", f"postgresql://x:y@127.0.0.1:{port}/none")
        connection, _ = silent.accept()
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=60)
        connection.close()
    assert errors == "stopping …\n"
    assert worker.returncode == 0

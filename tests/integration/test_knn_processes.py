"""The kNN service whose searches are made in processes of their own: the same answers, whatever
becomes of a process."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.vectors import index as vector_index
from pairmill.ops.web.knn import search_pool
from pairmill.ops.web.knn.batch_search import SearchSetup
from pairmill.ops.web.knn.search_pool import SearchPool
from pairmill.ops.web.knn.service import KnnService
from support.line import PATIENCE, wait_until
from support.made_releases import made_release, rows_of
from support.served_knn import asking, built_index, clustered, made_service, post

ROWS, DIMS = 300, 16
IMAGES = clustered(ROWS, DIMS, 5)
IDS = [5 * i for i in range(ROWS)]
BEAUTY: dict[str, Any] = {"aesthetics": {DIMS: list(np.eye(DIMS, dtype=np.float32)[:10])}}
QUERIES = [row.tolist() for row in clustered(24, DIMS, 6).astype("float32")]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to fail."""
    monkeypatch.setattr(search_pool, "WAIT_SECONDS", PATIENCE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built_index(tmp_path, IDS, IMAGES)
    labels = ["NSFW" if i % 4 == 0 else "UNLIKELY" for i in range(ROWS)]
    made_release(tmp_path / "release", rows_of(IDS, NSFW=labels), ROWS)
    return tmp_path


def setup_of(folder: Path) -> SearchSetup:
    return SearchSetup({"a": folder / "index"}, [folder / "release"], unsafe=False)


def pooled(folder: Path, said: list[str], processes: int = 2) -> KnnService:
    pool = SearchPool(setup_of(folder), processes, said.append)
    return made_service(folder / "index", [folder / "release"], searches=pool, **BEAUTY)


def pool_of(service: KnnService) -> SearchPool:
    assert isinstance(service.searches, SearchPool)
    return service.searches


def pids(service: KnnService) -> list[int]:
    return sorted(each.process.pid for each in pool_of(service)._all)


def gone(pid: int) -> bool:
    """Whether it has ended, and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ask(client: httpx.Client, query: list[float], **more: Any) -> list[dict[str, Any]]:
    answer = post(client, embedding_input=query, num_images=10, **more)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def test_answers_are_those_of_one_process(folder: Path) -> None:
    """Would catch: an option or a vector that does not reach the process, filters that are
    forgotten there, answers that are given to another request."""
    options: list[dict[str, Any]] = [
        {}, {"deduplicate": False}, {"use_safety_model": False}, {"num_result_ids": 60},
        {"num_result_ids": 700}, {"aesthetic_score": 9, "aesthetic_weight": 0.5},
    ]  # fmt: skip
    with asking(made_service(folder / "index", [folder / "release"], **BEAUTY)) as alone:
        expected = [ask(alone, query, **more) for query in QUERIES for more in options]
    service = pooled(folder, said := [])
    with asking(service) as client, ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(ask, client, query, **more) for query in QUERIES for more in options
        ]
        assert [each.result() for each in asked] == expected
        assert not any(row["NSFW"] == "NSFW" for row in expected[0])
        page = client.get("/search", params={"id": IDS[1]}).text
        near = post(client, id=IDS[1], num_images=5).json()
        assert len(near) == 5
        assert all(f"http://h.example/{row['id']}.jpg" in page for row in near)
    assert said == []


def test_a_process_that_dies_loses_no_query(folder: Path) -> None:
    """Would catch: a query without an answer, a service that searches no more, processes that are
    left when it ends."""
    service = pooled(folder, said := [])
    with asking(service) as client, ThreadPoolExecutor(4) as threads:
        expected = ask(client, QUERIES[0])
        first = pids(service)
        for pid in first:
            os.kill(pid, signal.SIGSTOP)
        held = [threads.submit(ask, client, QUERIES[0]) for _ in range(4)]
        wait_until(pool_of(service)._free.empty, "both at work")
        for pid in first:  # whichever have the queries
            os.kill(pid, signal.SIGKILL)
        assert [each.result(60) for each in held] == [expected] * 4
        # each of them is asked again, and answers
        again = [threads.submit(ask, client, QUERIES[0]) for _ in range(20)]
        assert [each.result(60) for each in again] == [expected] * 20
        assert set(said) == {"a search process ended (exit code -9): another is started"}
        wait_until(lambda: pool_of(service)._free.qsize() == 2, "two that are free again")
        last = pids(service)
        assert not set(first) & set(last)
    assert all(gone(pid) for pid in [*first, *last])


def test_a_query_that_kills_its_process_is_refused_and_the_next_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a loop of processes that are started for one query, for ever."""
    monkeypatch.setattr(search_pool._Process, "ask", _dying(search_pool._Process.ask))
    service = pooled(folder, said := [], processes=1)
    with asking(service) as client:
        refused = post(client, embedding_input=QUERIES[0], num_images=10)
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert len(ask(client, QUERIES[1])) == 10
        assert said == ["a search process ended (exit code -9): another is started"] * 2


def _dying(real: Any) -> Any:
    deaths = iter(range(2))

    def ask(process: Any, *message: Any) -> Any:
        if next(deaths, None) is not None:
            process.process.kill()
            process.process.wait()
        return real(process, *message)

    return ask


def test_each_process_sees_a_removal_at_once(folder: Path) -> None:
    """Would catch: a process that answers from the files that it opened."""
    service = pooled(folder, [])
    free = pool_of(service)._free
    with asking(service) as client:
        nearest = ask(client, QUERIES[0])[0]["id"]
        held = free.get()
        assert ask(client, QUERIES[0])[0]["id"] == nearest
        vector_index.remove(folder / "index", [nearest])
        assert nearest not in [row["id"] for row in ask(client, QUERIES[0])]
        other = free.get()
        free.put(held)
        assert nearest not in [row["id"] for row in ask(client, QUERIES[0])]
        free.put(other)


def test_a_process_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a query without an answer, and a page that cannot end, for a disk that hangs."""
    monkeypatch.setattr(search_pool, "ANSWER_SECONDS", 5)
    service = pooled(folder, said := [], processes=1)
    with asking(service) as client:
        expected = ask(client, QUERIES[0])
        (pid,) = pids(service)
        os.kill(pid, signal.SIGSTOP)
        assert ask(client, QUERIES[0]) == expected
        assert gone(pid)
        assert len(said) == 1
        (pid,) = pids(service)
        monkeypatch.setattr(search_pool, "ANSWER_SECONDS", 3600)
        os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(post, client, embedding_input=QUERIES[0])
            wait_until(pool_of(service)._free.empty, "its batch")
            service.stop()
            assert asked.result(60).status_code == 503
    assert gone(pid)


def test_an_index_of_another_model_is_asked_nothing_that_was_asked_of_the_old(
    folder: Path,
) -> None:
    """Would catch: a vector of one model that is compared with those of another, at the moment in
    which a build takes the place of the one before."""
    service = pooled(folder, [], processes=1)
    with asking(service) as client:
        replaced = folder / "index" / "index.json"
        info = json.loads(replaced.read_text())
        # the page has not seen it yet, its process has
        served = service.indexes.get("a")
        served.unchanged = lambda: served._opened  # type: ignore[method-assign]
        replaced.write_text(json.dumps(info | {"model": info["model"] | {"digest": "d2"}}))
        refused = post(client, embedding_input=QUERIES[0])
        assert (refused.status_code, "replaced" in refused.text) == (503, True)


def test_what_cannot_be_opened_is_said_at_the_start(folder: Path) -> None:
    """Would catch: a page that is up, and answers every query by 503."""
    pool = SearchPool(setup_of(folder), 2, print)
    (folder / "index" / "index.json").unlink()
    with pytest.raises(UserError, match="index"):
        pool.start()
    pids = [each.process.pid for each in pool._all]
    pool.stop()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@pytest.fixture
def command(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pairmill.ops.cli", "web", "knn", "--index", f"a={folder / 'index'}",
         "--release", folder / "release", "--no-model", "--processes", "2", "--bind", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_page_its_processes_end(command: "subprocess.Popen[str]", how: int) -> None:
    """Would catch: processes that go on without their page, with its memory."""
    assert command.stdout
    too_long = threading.Timer(PATIENCE, command.kill)
    too_long.start()
    assert command.stdout.readline().startswith("knn: http://127.0.0.1:")
    too_long.cancel()
    tasks = Path(f"/proc/{command.pid}/task").glob("*/children")
    children = [pid for task in tasks for pid in task.read_text().split()]
    searching = [
        pid for pid in children if b"search_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(searching) == 2
    command.send_signal(how)
    command.wait(60)
    wait_until(lambda: all(ended(pid) for pid in searching), "their end")


def ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True

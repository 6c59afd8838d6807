"""The end of each task has a line that says what of, and how it ended; the worker's own end sums up."""

import re
from functools import partial

import pytest

from pairmill.workers import daemon
from pairmill.workers.errors import NotNow, TaskFailed
from pairmill.workers.extract.calls import ExtractQueue
from support.database import Database


class Ends(daemon.WorkerKind[ExtractQueue]):
    """Tasks that end as their file is named; one that cannot be done now is done the second time.
    Before its first claim the database forgets the process, as one that was restored."""

    name = "extract"
    queue_type = ExtractQueue

    def __init__(self, db: Database) -> None:
        self._db, self._tried, self._known = db, False, True

    async def ready(self) -> None:
        self._db.accept_all()
        if self._known:
            self._known = False
            self._db.admin.execute(
                "update mill.instance set worker_id = (select worker_id from mill.worker where name = 'other')"
            )

    async def work(self, job: daemon.Job[ExtractQueue]) -> None:
        location = job.payload["location"]
        job.progress(3, 10, "links")
        if "later" in location and not self._tried:
            self._tried = True
            raise NotNow("no host answers")
        if "broken" in location:
            raise TaskFailed("no\x1b[31m\ngzip [/bold]", retry=False)
        if "told" in location:
            job.said = "7 records"
        job.count("kept", 1_200)
        await job.call(job.queue.submit_extract, job.lease_id, 0, [("", "records", "", 0)])


def test_tasks_end_with_a_line_and_the_worker_with_their_numbers(
    db: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task that is handed back for the worker's own trouble counts no attempt; reasons from outside
    stay on their line."""
    db.login("extract", "other")
    for name in ("a/later.wat", "a/broken.wat", "a/told.wat"):
        db.add_wat(name)
    db.queue("steward")
    daemon.run(partial(daemon.serve, Ends(db), db.login("extract", "ada"), drain=True))
    said = capsys.readouterr().err.splitlines()
    lines = [re.sub(r"[0-9.]+ s\b|[0-9,]+ links/s", "N", line) for line in said]
    assert lines == [
        "extract ada: task 1 (later.wat) handed back: no host answers; 3 of 10 links were done, in N",
        "extract ada: task 1 (later.wat) done: 1,200 kept; N, N",
        r"extract ada: task 2 (broken.wat) failed: no\x1b[31m\ngzip [/bold] (given up); 3 of 10 links were done, in N",
        "extract ada: task 3 (told.wat) done: 7 records; N, N",
        "extract ada: nothing left to do",
        "extract ada: ends after N: 2 tasks done, 1 task handed back, 1 task failed; 2,400 kept",
    ]
    assert db.rows("select task_id, state, attempts from mill.task order by 1") == [
        (1, "done", 0), (2, "discarded", 1), (3, "done", 0),
    ]  # fmt: skip

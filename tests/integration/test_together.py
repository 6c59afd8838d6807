"""Everything at once: claims, submissions, failures, acceptance, expiry and truncation."""

import random
import threading
from collections.abc import Callable
from typing import Any

from pairmill.workers.download.calls import DownloadQueue
from pairmill.workers.errors import LeaseLost
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.steward.calls import StewardQueue
from support.database import Database, outcomes, pair_rows, score_rows

FILES, LINKS, BATCH = 12, 40, 10


def test_all_is_accepted_exactly_once_and_nobody_deadlocks(db: Database) -> None:
    db.admin.execute(
        "update mill.setting set batch_size = %s, open_batches_max = 3, batches_per_slot = 2,"
        " retry_seconds = 0, max_attempts = 1000, pairs_per_wat = 40",
        (BATCH,),
    )
    db.add_model()
    for i in range(FILES):
        db.add_wat(f"{i}.wat")
    errors: list[BaseException] = []
    finished = threading.Event()

    def worker(kind: str, seed: int, work: Callable[[Any, random.Random, int], bool]) -> None:
        rng = random.Random(seed)
        queue, instance = db.queue(kind, f"{kind}-{seed}")
        try:
            while not finished.is_set():
                if not work(queue, rng, instance):
                    if kind == "steward" and queue.drained():
                        finished.set()
                    finished.wait(0.01)
        except BaseException as error:
            errors.append(error)
            finished.set()

    threads = [
        threading.Thread(target=worker, args=(kind, seed, work))
        for kind, work, count in (
            ("extract", extract, 2), ("download", download, 3), ("score", score, 2), ("steward", steward, 2),
        )
        for seed in range(count)
    ]  # fmt: skip
    for kind, count in (("extract", 2), ("download", 3), ("score", 2), ("steward", 2)):
        for seed in range(count):
            db.queue(kind, f"{kind}-{seed}")
    for thread in threads:
        thread.start()
    finished.wait(120)
    drained = finished.is_set()
    finished.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert drained

    # every second link of a file stands in the next file too
    distinct = FILES * LINKS // 2 + LINKS // 2
    assert db.value("select count(*) from mill.pair") == distinct
    assert db.value("select count(*) from mill.download") == distinct
    assert db.value("select count(distinct (batch_id, n)) from mill.download") == distinct
    assert db.value("select count(*) from mill.score") == distinct
    assert db.value("select count(*) from mill.embedding") == distinct
    assert db.value("select count(*) from mill.thumbnail") == 0
    assert db.rows("select distinct state from mill.task") == [("done",)]
    assert db.rows("select stage, sum(count)::int from mill.wat_count group by 1 order by 1") == [
        ("duplicate", FILES * LINKS - distinct), ("links", FILES * LINKS), ("pair", distinct),
    ]  # fmt: skip


def extract(queue: ExtractQueue, rng: random.Random, instance: int) -> bool:
    claim = queue.claim(instance)
    if claim is None:
        return False
    first = int(claim.payload["location"].split(".")[0]) * LINKS // 2
    if rng.random() < 0.3:
        queue.fail(claim.lease_id, "by chance", retry=True)
        return True
    urls = [f"http://h{i % 9}.example/{i}.jpg" for i in range(first, first + LINKS)]
    queue.copy_pairs(pair_rows(claim.lease_id, urls))
    queue.submit_extract(claim.lease_id, LINKS, [("image", "links", "", LINKS)])
    return True


def download(queue: DownloadQueue, rng: random.Random, instance: int) -> bool:
    claim = queue.claim(instance)
    if claim is None:
        return False
    positions = [n for n, _ in queue.urls(claim.lease_id)]
    rng.shuffle(positions)
    part = 0
    while positions:
        some, positions = positions[:4], positions[4:]
        queue.submit_download(claim.lease_id, part, outcomes(some))
        part += 1
        chance = rng.random()
        if chance < 0.1:
            queue.release(claim.lease_id)
            return True
        if chance < 0.2:
            queue.fail(claim.lease_id, "by chance", retry=True)
            return True
    queue.complete(claim.lease_id)
    return True


def score(queue: ScoreQueue, rng: random.Random, instance: int) -> bool:
    claim = queue.claim(instance, "d1")
    if claim is None:
        return False
    found = queue.thumbnails(claim.lease_id, 0, 100)
    assert len(found) == claim.payload["count"]
    positions = [row[0] for row in found]
    for part, start in enumerate(range(0, len(positions), 3)):
        if rng.random() < 0.1:
            queue.release(claim.lease_id)
            return True
        some = positions[start : start + 3]
        queue.copy_scores(score_rows(claim.lease_id, part, some))
        queue.submit_score(claim.lease_id, part, len(some))
    try:
        queue.complete(claim.lease_id)
    except LeaseLost as lost:  # nobody takes leases away here
        raise AssertionError(str(lost)) from lost
    return True


def steward(queue: StewardQueue, rng: random.Random, instance: int) -> bool:
    accepted = queue.accept_next()
    if accepted is not None:
        assert accepted[3] is None, accepted
    for name in (
        "ensure_partitions",
        "expire_leases",
        "close_batches",
        "empty_slots",
        "sweep_inbox",
    ):
        queue.maintain(name)
    return accepted is not None

"""What hosts said, kept for others by who may be believed; and the evidence of each refusal."""

import math
from dataclasses import replace
from typing import Any

import pytest

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import DownloadQueue, OptOuts, Outcomes
from pairmill.workers.errors import LeaseLost, Malformed
from pairmill.workers.queue import Claim
from support.database import Database, outcomes

URLS = [f"http://h{i % 4}.example/{i}.jpg" for i in range(8)]
ROBOTS = "robots.txt"


def lease(db: Database, name: str = "ada") -> tuple[DownloadQueue, Claim]:
    """A download worker of this name with a batch of the eight URLs."""
    db.extract(URLS, location=f"{name}.wat.gz")
    db.close_batches()
    claim = db.claim("download", name)
    assert claim
    return db.queue("download", name)[0], claim


def said(
    *files: tuple[str, str], file: str = ROBOTS, age: float = 60.0, status: int | None = 200
) -> OptOuts:
    """(origin, rules) as a submission."""
    return OptOuts(
        origin=[origin for origin, _ in files],
        file=[file] * len(files),
        http_status=[status] * len(files),
        rules=[rules for _, rules in files],
        age=[age] * len(files),
    )


def known(queue: DownloadQueue, claim: Claim) -> dict[str, str]:
    return {origin: rules for origin, _, _, rules, _ in queue.opt_outs(claim.lease_id)}


def two_workers(db: Database) -> tuple[DownloadQueue, Claim, DownloadQueue, Claim]:
    """Two workers with a batch each, of the same hosts."""
    ada, first = lease(db)
    urls = [f"http://h{i % 4}.example/other/{i}.jpg" for i in range(8)]
    db.extract(urls, location="b.wat.gz")
    db.close_batches()
    second = db.claim("download", "bob")
    assert second
    return ada, first, db.queue("download", "bob")[0], second


def test_own_readings_are_known_again_and_only_of_the_batchs_hosts(db: Database) -> None:
    queue, claim = lease(db)
    files = said(
        ("http://h0.example", ""),
        ("http://h1.example", "disallow: /"),
        ("http://x.example", "disallow: /"),
    )
    # how many of them were kept is not told
    assert queue.submit_opt_outs(claim.lease_id, files) == 3
    assert known(queue, claim) == {"http://h0.example": "", "http://h1.example": "disallow: /"}
    assert queue.submit_opt_outs(claim.lease_id, said(("http://h1.example", ""), age=0.0)) == 1
    assert known(queue, claim)["http://h1.example"] == ""
    assert db.value("select count(*) from mill.host_file") == 2


def test_what_an_unproven_worker_reads_is_its_own_alone(db: Database) -> None:
    ada, first, bob, second = two_workers(db)
    files = {"http://h0.example": "", "http://h1.example": "disallow: /"}
    ada.submit_opt_outs(first.lease_id, said(*files.items()))
    assert known(bob, second) == {}
    db.admin.execute("select mill.prove_worker('ada', true)")
    assert known(bob, second) == files
    # of several the newest
    bob.submit_opt_outs(second.lease_id, said(("http://h1.example", ""), age=3600.0))
    assert known(bob, second) == files
    bob.submit_opt_outs(second.lease_id, said(("http://h1.example", ""), age=1.0))
    assert known(bob, second)["http://h1.example"] == ""
    db.admin.execute("select mill.disable_worker('ada')")
    assert known(bob, second) == {"http://h1.example": ""}


def test_answer_is_bounded(db: Database) -> None:
    urls = [f"http://h{i}.example/x.jpg" for i in range(300)]
    db.extract(urls)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    for start in range(0, 300, 100):
        files = said(*[(u.removesuffix("/x.jpg"), "x" * 65_000) for u in urls[start : start + 100]])
        queue.submit_opt_outs(claim.lease_id, files)
    assert 100 < len(queue.opt_outs(claim.lease_id)) <= 8_000_000 // 65_000


def test_readings_end_after_a_day(db: Database) -> None:
    queue, claim = lease(db)
    queue.submit_opt_outs(claim.lease_id, said(("http://h0.example", ""), age=86_000.0))
    queue.submit_opt_outs(claim.lease_id, said(("http://h1.example", ""), age=87_000.0))
    assert set(known(queue, claim)) == {"http://h0.example"}
    steward, _ = db.queue("steward")
    assert steward.maintain("sweep_host_files") == 1


def change(**columns: Any) -> OptOuts:
    return replace(said(("http://h0.example", ""), ("http://h1.example", "")), **columns)


@pytest.mark.parametrize(
    "wrong",
    [
        change(file=[ROBOTS]),
        change(file=[ROBOTS, "passwd"]),
        change(rules=["x" * 65_537, ""]),
        change(rules=[None, ""]),
        change(origin=["http://" + "h" * 300, "http://h1.example"]),
        change(http_status=[99, 200]),
        change(age=[-1.0, 0.0]),
        change(age=[math.nan, 0.0]),
        change(age=[math.inf, 0.0]),
        said(*[(f"http://h{i}.example", "") for i in range(30_001)]),
        said(*[(f"http://h{i}.example", "x" * 60_000) for i in range(150)]),
    ],
)
def test_malformed_readings_change_nothing(db: Database, wrong: OptOuts) -> None:
    queue, claim = lease(db)
    with pytest.raises(Malformed):
        queue.submit_opt_outs(claim.lease_id, wrong)
    assert db.value("select count(*) from mill.host_file") == 0


def test_lease_of_another_gives_and_takes_nothing(db: Database) -> None:
    _, claim = lease(db)
    eve, _ = db.queue("download", "eve")
    with pytest.raises(LeaseLost):
        eve.opt_outs(claim.lease_id)
    with pytest.raises(LeaseLost):
        eve.submit_opt_outs(claim.lease_id, said(("http://h0.example", "")))


def refused(positions: list[int]) -> Outcomes:
    return replace(
        outcomes(positions, Outcome.OPTED_OUT),
        refused_positions=positions,
        signal=["X-Robots-Tag"] * len(positions),
        value=["noai"] * len(positions),
        source=[URLS[n] for n in positions],
        age=[5.0] * len(positions),
    )


def test_evidence_is_kept_with_its_pair(db: Database) -> None:
    queue, claim = lease(db)
    queue.submit_download(claim.lease_id, 0, refused([1, 2]))
    queue.submit_download(claim.lease_id, 1, outcomes([0, 3, 4, 5, 6, 7], Outcome.TIMEOUT))
    assert db.value("select count(*) from report.opt_out") == 0
    queue.complete(claim.lease_id)
    db.accept_all()
    found = db.rows(
        "select n, url, signal, value, now() - read_at < '1 minute' from report.opt_out order by n"
    )
    assert [(n, signal, value, young) for n, _, signal, value, young in found] == [
        (1, "X-Robots-Tag", "noai", True), (2, "X-Robots-Tag", "noai", True),
    ]  # fmt: skip
    # withdrawn with what it came with
    number = db.value("select submission_id from mill.download where n = 1")
    db.admin.execute("select mill.withdraw(%s, 'test')", (number,))
    assert db.value("select count(*) from report.opt_out") == 0


EVIDENCE: dict[str, dict[str, Any]] = {
    "none": {"refused_positions": [], "signal": [], "value": [], "source": [], "age": []},
    "of one": {"refused_positions": [1], "signal": ["x"], "value": ["x"], "source": ["x"], "age": [1.0]},
    "of another position": {"refused_positions": [1, 5]},
    "twice": {"refused_positions": [1, 1]},
    "lengths differ": {"signal": ["x"]},
    "null": {"value": [None, "x"]},
    "long signal": {"signal": ["x" * 51, "x"]},
    "long value": {"value": ["x" * 501, "x"]},
    "long source": {"source": ["x" * 2101, "x"]},
    "not a number": {"age": [math.nan, 1.0]},
    "of a success": {"outcome": [0, 50]},
    "no arrays": {"refused_positions": None, "signal": None, "value": None, "source": None, "age": None},
    "more than positions": {"refused_positions": [1, 2, 3]},
}  # fmt: skip


@pytest.mark.parametrize("name", EVIDENCE)
def test_refusal_without_its_evidence_is_malformed(db: Database, name: str) -> None:
    queue, claim = lease(db)
    with pytest.raises(Malformed):
        queue.submit_download(claim.lease_id, 0, replace(refused([1, 2]), **EVIDENCE[name]))
    assert db.value("select count(*) from mill.submission where state = 'received'") == 0

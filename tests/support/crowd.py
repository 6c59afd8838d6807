"""Workers whose downloads are checked, and the manners in which they work."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import Outcomes
from pairmill.workers.queue import Claim
from support.database import Database, key, outcomes_of

URLS = [f"http://h{n}.example/{n}.jpg" for n in range(40)]
Answer = tuple[Outcome, str]  # and what the image is made of
Manner = Callable[[str], Answer]


def honest(url: str) -> Answer:
    """Two of three URLs have an image."""
    dead = key(url).int % 3 == 0
    return (Outcome.HTTP_ERROR, "") if dead else (Outcome.SUCCESS, url)


def liar(salt: str) -> Manner:
    return lambda url: (Outcome.SUCCESS, url + salt)


def lazy(url: str) -> Answer:
    return Outcome.TIMEOUT, ""


def unlucky(url: str) -> Answer:
    """Loses one image in ten."""
    return lazy(url) if key(url).int % 10 == 1 else honest(url)


def reply(given: Sequence[tuple[int, str]], manner: Manner) -> Outcomes:
    answers = [manner(url) for _, url in given]
    return outcomes_of(
        [n for n, _ in given],
        [sha256(image) if image else outcome for outcome, image in answers],
    )


def sha256(image: str) -> bytes:
    return hashlib.sha256(image.encode()).digest()


@dataclass
class Crowd:
    """Workers who are checked, and a line of batches for them."""

    db: Database

    def work(self, name: str, manner: Manner = honest) -> Claim | None:
        """Claim the next task in this worker's name, and do it in this manner."""
        claim = self.db.claim("download", name)
        if claim is not None:
            self.finish(name, claim, manner)
        return claim

    def finish(self, name: str, claim: Claim, manner: Manner) -> None:
        queue, _ = self.db.queue("download", name)
        given = queue.urls(claim.lease_id)
        queue.submit_download(claim.lease_id, 0, reply(given, manner))
        queue.complete(claim.lease_id)
        self.db.accept_all()

    def judge(self) -> list[str]:
        """Decide what can be; the states of all checks."""
        self.db.queue("steward")[0].maintain("judge_replications")
        return [
            r[0] for r in self.db.rows("select state from mill.replication order by replication_id")
        ]

    def of(self, name: str, column: str) -> object:
        return self.db.value(f"select {column} from mill.worker where name = %s", name)

    def network(self, **networks: str) -> None:
        for name, network in networks.items():
            self.db.admin.execute(
                "update mill.worker set network = %s where name = %s", (network, name)
            )


def new_crowd(db: Database, *names: str) -> Crowd:
    """These workers, none of whom an admin vouches for, and one task of 40 URLs."""
    for name in names:
        db.queue("download", name)
        db.admin.execute("update mill.worker set streak = 0 where name = %s", (name,))
    batches(db, 1)
    return Crowd(db)


def batches(db: Database, count: int) -> None:
    db.admin.execute("update mill.setting set open_batches_max = 1, batch_open_seconds = 0")
    first = int(db.value("select count(*) from mill.wat_file"))
    for number in range(first, first + count):
        db.extract([f"{url}?{number}" for url in URLS], f"{number}.wat.gz")
        db.close_batches()

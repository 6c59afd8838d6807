"""What the trust check lets through, and what it costs: crowds of workers, simulated.

    python bench/trust.py [--quick] [--json] [--seed 1]

The workers are simulated, the database is not: a server of its own (embedded), the real functions
(claim_v1 … judge_replications_v1), a login and a network for each worker. Each crowd has 20
workers, who come by chance; batches have 1,000 URLs, of which three in ten are dead; 50 are
checked. The last workers of a crowd are the ones in its name:

honest      lose one living image in thirty, by chance (a time-out)
sloppy      lose three in ten
lying       invent an image for every URL
half        invent one for every second URL; a tenth: for every tenth
turncoat    honest for 15 batches, lying from then on
lazy        say of every URL that it timed out
colluding   lie alike, know which URLs one of them did, and agree with it in checks; honest else
+ gold questions  the same crowd, with one worker of the admin's own, who is proven: gold
            questions are drawn from what it downloads

lies_sent and lies_left are shares of all rows: what was submitted, and what counts at the end.
stopped: how many of those in the crowd's name, and of the honest. checks: repeats a task, and what
that is in URLs at 10,000 a batch; redone: URLs withdrawn and fetched again. Runs without a clock:
nothing of it is a speed.
"""

import hashlib
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from own_server import database, machine, note, own_server, show
from psycopg.conninfo import make_conninfo

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import DownloadQueue
from pairmill.workers.errors import Refused
from pairmill.workers.steward.calls import StewardQueue
from support.database import outcomes_of

CROWD, BATCH, SAMPLE, PRODUCTION = 20, 1_000, 50, 10_000
ANY = "x"  # the password of all
Row = bytes | Outcome  # the sha256 of the image, or how it failed
NOTHING, LOST = Outcome.HTTP_ERROR, Outcome.TIMEOUT


def digest(*parts: str) -> bytes:
    return hashlib.sha256(" ".join(parts).encode()).digest()


def truth(url: str) -> Row:
    found = digest(url)
    return NOTHING if found[0] < 77 else found


def part_of(url: str, salt: str, share: float) -> bool:
    return int.from_bytes(digest(url, salt)[:4]) < share * 2**32


@dataclass
class Worker:
    """One simulated worker: its login's queue, and how it answers for a URL."""

    name: str
    kind: str
    queue: DownloadQueue
    instance: int
    draw: random.Random
    friends: set[str]
    tasks: int = 0
    gone: bool = False

    def answer(self, url: str, *, is_sample: bool) -> tuple[Row, bool]:
        """(outcome and image, whether it is a lie)."""
        lie = digest(url, "lie", "" if self.kind == "colluding" else self.name)
        real = truth(url)
        match self.kind:
            case "lying":
                return lie, True
            case "lazy":
                return LOST, real != NOTHING
            case "half" | "a tenth":
                share = 0.5 if self.kind == "half" else 0.1
                if part_of(url, self.name, share):
                    return lie, True
            case "turncoat" if self.tasks >= 15:
                return lie, True
            case "colluding":
                if not is_sample or url in self.friends:
                    return lie, True
            case "sloppy" if real != NOTHING and self.draw.random() < 0.3:
                return LOST, True
        if real != NOTHING and self.draw.random() < 1 / 30:
            return LOST, False
        return real, False

    def work(self, tally: "Tally") -> bool:
        """Claim a task and do it; whether there was one."""
        try:
            claim = self.queue.claim(self.instance)
        except Refused:
            self.gone = True
            return True
        if claim is None:
            return False
        given = self.queue.urls(claim.lease_id)
        is_sample = len(given) <= SAMPLE
        rows = []
        for _, url in given:
            row, is_lie = self.answer(url, is_sample=is_sample)
            rows.append(row)
            if is_lie:
                tally.lies.add((self.name, url))
                tally.sent += not is_sample
            if not is_sample and self.kind == "colluding":
                self.friends.add(url)
        self.queue.submit_download(claim.lease_id, 0, outcomes_of([n for n, _ in given], rows))
        self.queue.complete(claim.lease_id)
        self.tasks += not is_sample
        tally.urls += len(given)
        return True


@dataclass
class Tally:
    urls: int = 0
    sent: int = 0
    lies: set[tuple[str, str]] = field(default_factory=set)  # (worker, URL)


def fill(admin: psycopg.Connection, batches: int) -> None:
    """Batches of URLs, closed, each with its download task."""
    admin.execute("select mill.ensure_partitions(%s)", (batches,))
    admin.execute(
        "insert into mill.batch (batch_id, bucket, pair_count, closed_at)"
        " select b, 0, %s, now() from generate_series(0, %s) b",
        (BATCH, batches - 1),
    )
    admin.execute(
        "insert into mill.pair"
        " (batch_id, n, wat_id, submission_id, url_key, url, text, language_probability)"
        " select b, n, 1, 1, md5(b || '/' || n)::uuid,"
        " format('http://h%%s.example/%%s.jpg', b, n), 'a text', 1"
        " from generate_series(0, %s) b, generate_series(0, %s) n",
        (batches - 1, BATCH - 1),
    )
    admin.execute(
        "insert into mill.task (kind, batch_id) select 'download', b from generate_series(0, %s) b",
        (batches - 1,),
    )
    admin.execute(
        "update mill.setting set replicated_urls = %s, batches_per_slot = 1000000", (SAMPLE,)
    )
    admin.execute("analyze")


def simulate(
    url: str, kind: str, bad: int, *, gold_questions: bool, batches: int, seed: int
) -> dict[str, Any]:
    """One crowd, from the first claim until nobody has anything to do."""
    draw = random.Random(seed)
    tally = Tally()
    friends: set[str] = set()
    with psycopg.connect(url, autocommit=True) as admin:
        fill(admin, batches)
        admin.execute("select mill.add_worker('steward', 'steward', 'steward', 'x')")
        steward = StewardQueue(make_conninfo(url, user="steward", password=ANY))
        steward.register()
        crowd = []
        for number in range(CROWD + gold_questions):
            name = f"w{number:02}"
            admin.execute("select mill.add_worker(%s, %s, 'download', 'x')", (name, name))
            admin.execute("select mill.set_network(%s, %s)", (name, name))
            queue = DownloadQueue(make_conninfo(url, user=name, password=ANY))
            its = kind if CROWD - bad <= number < CROWD else "honest"
            if number == CROWD:
                admin.execute("select mill.prove_worker(%s, true)", (name,))
            crowd.append(Worker(name, its, queue, queue.register().instance_id, draw, friends))
        idle = 0
        while idle < 3 * len(crowd):
            worker = draw.choice([w for w in crowd if not w.gone])
            idle = 0 if worker.work(tally) else idle + 1
            while steward.accept_next():
                pass
            steward.maintain("judge_replications")
            if draw.random() < 0.05:
                steward.maintain("sweep_gold_questions")
        result = count(admin, tally, kind, bad, gold_questions=gold_questions)
        for queue in (steward, *(w.queue for w in crowd)):
            queue.close()
        for worker in crowd:
            admin.execute(f"drop role {worker.name}")
        admin.execute("drop role steward")
    return result


def count(
    admin: psycopg.Connection, tally: Tally, kind: str, bad: int, *, gold_questions: bool
) -> dict[str, Any]:
    rows = admin.execute(
        "select w.name, p.url from mill.current_download d join mill.pair p using (batch_id, n)"
        " join mill.submission s on s.submission_id = d.submission_id"
        " join mill.worker w using (worker_id)"
    ).fetchall()
    left = sum(row in tally.lies for row in rows)
    total = admin.execute("select count(*) from mill.pair").fetchone()
    checks = admin.execute("select count(*) from mill.task where is_replica").fetchone()
    stopped = Counter(
        "bad" if CROWD - bad <= int(name[1:]) < CROWD else "honest"
        for (name,) in admin.execute(
            "select name from mill.worker where stopped_because is not null"
        )
    )
    assert total
    assert checks
    tasks = total[0] / BATCH
    return {
        "crowd": f"{CROWD - bad} honest, {bad} {kind}"
        + (" + gold questions" if gold_questions else ""),
        "lies_sent": f"{100 * tally.sent / total[0]:.1f} %",
        "lies_left": f"{100 * left / total[0]:.2f} %",
        "stopped": f"{stopped['bad']} of {bad}",
        "honest_stopped": f"{stopped['honest']} of {CROWD - bad}",
        "checks_a_task": f"{checks[0] / tasks:.2f}",
        "checks_cost": f"{100 * checks[0] * SAMPLE / (tasks * PRODUCTION):.2f} %",
        "redone": f"{100 * (tally.urls - checks[0] * SAMPLE - total[0]) / total[0]:.1f} %",
        "undone": total[0] - len(rows),
    }


CROWDS: list[tuple[str, int, bool]] = [  # (who, how many, with gold questions)
    ("lying", 0, False),
    ("sloppy", 4, False),
    ("lying", 2, False),
    ("lying", 6, False),
    ("lazy", 6, False),
    ("half", 6, False),
    ("a tenth", 6, False),
    ("turncoat", 6, False),
    ("colluding", 2, False),
    ("colluding", 6, False),
    ("colluding", 10, False),
    ("colluding", 6, True),
    ("colluding", 10, True),
]


def main(
    quick: Annotated[
        bool, typer.Option(help="Within a minute: few batches, three crowds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    seed: Annotated[
        int, typer.Option(help="Of the simulation's chance; the database's is its own.")
    ] = 1,
) -> None:
    crowds = [("lying", 0, False), ("lying", 6, False), ("colluding", 6, True)] if quick else CROWDS
    batches = 60 if quick else 600
    found: list[dict[str, Any]] = []
    with own_server() as (server, _):
        ran_on = machine(server.url())
        for number, (kind, bad, gold_questions) in enumerate(crowds):
            url = database(server, f"crowd{number}")
            found.append(
                simulate(url, kind, bad, gold_questions=gold_questions, batches=batches, seed=seed)
            )
            note(str(found[-1]))
    show(ran_on | {"batches": batches, "urls_a_batch": BATCH, "crowds": found}, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)

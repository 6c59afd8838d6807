"""A line with a random history: retries, withdrawals, opt-outs, removals, two models and a tagger."""

import hashlib
import random
from dataclasses import replace

from pairmill.ops.admin import removal
from pairmill.schema.outcomes import Outcome, ScoreOutcome
from support.database import Database, key, outcomes_of, page_row, score_rows

FILES, PAIRS, PAGES = 3, 60, 12  # WAT files, and of each
PARTS = 2  # submissions of a download, and of a scoring
LANGUAGES = ("en", "en", "de", "ja", None)
LICENCES = (None, None, None, "https://creativecommons.org/licenses/by/4.0/")
FAILURES = (Outcome.HTTP_ERROR, Outcome.CONNECT_FAILED, Outcome.TIMEOUT, Outcome.OPTED_OUT)
SIGNALS = ("robots.txt", "tdm-reservation")


class RandomHistory:
    """The line, and the dice; every choice is the seed's."""

    def __init__(self, db: Database, seed: int) -> None:
        self.db = db
        self.chance = random.Random(seed)
        db.admin.execute("update mill.setting set batch_size = 40, url_retry_seconds = 0")
        db.add_model("d1")
        db.add_model("d2")
        self.tagger = db.add_tagger("d1")
        for number in range(FILES):
            crawl = f"CC-MAIN-202{number // 2}-10"
            db.admin.execute("select mill.add_wat(%s, %s)", (crawl, [f"crawl/{number}.wat.gz"]))

    def run(self) -> None:
        """All of it, three times over, with something taken back after each; then removals."""
        for kind in ("download", "score", "extract", None):
            while self._extract():
                pass
            self.db.close_batches()
            while self._download():
                pass
            while self._score("d1") or self._score("d2"):
                pass
            if kind:
                self._withdraw(kind)
                self.db.admin.execute("select * from mill.retry_outcomes(null, 0, 1000, true)")
        urls = [
            url for (url,) in self.db.rows("select url from mill.pair order by url_key limit 4")
        ]
        removal.add(self.db.admin, urls[:3], "asked for", False)
        removal.add(self.db.admin, urls[3:], "", False)

    def _extract(self) -> bool:
        claim = self.db.claim("extract")
        if claim is None:
            return False
        chance, queue = self.chance, self.db.queue("extract")[0]
        number = claim.payload["wat_id"]
        refusals = [
            ("meta robots", "noai") if chance.random() < 0.1 else (None, None) for _ in range(PAGES)
        ]
        site = f"https://site{number}.example"
        queue.copy_pages(
            [page_row(claim.lease_id, i, f"{site}/{i}", refusals[i]) for i in range(PAGES)]
        )
        rows = []
        for i in range(PAIRS):
            # few hosts have most links; some links are in the file before, too
            host, file = int(chance.paretovariate(0.7)) % 40, number - (chance.random() < 0.1)
            url = f"https://host{host}.example/{file}/{i}.jpg"
            language, page = chance.choice(LANGUAGES), chance.randrange(PAGES)
            sure, licence = chance.random(), chance.choice(LICENCES)
            rows.append(
                (
                    claim.lease_id,
                    i,
                    key(url).bytes,
                    url,
                    f"text {i}",
                    language,
                    sure,
                    licence,
                    "image",
                    page,
                )
            )
        queue.copy_pairs(rows)
        counts = [("image", "links", "", PAIRS + 7), ("image", "dropped", "no_text", 7)]
        queue.submit_extract(claim.lease_id, PAIRS, [*counts, ("", "records", "", 50)])
        self._accept()
        return True

    def _download(self) -> bool:
        name = self.chance.choice(("ada", "bob", "cyd"))
        claim = self.db.claim("download", name)
        if claim is None:
            return False
        queue, _ = self.db.queue("download", name)
        left = [n for n, _ in queue.urls(claim.lease_id)]
        for part in range(PARTS):
            positions = left[part::PARTS]
            found = [
                self._image(n) if self.chance.random() < 0.7 else self.chance.choice(FAILURES)
                for n in positions
            ]
            refused = [
                n for n, each in zip(positions, found, strict=True) if each is Outcome.OPTED_OUT
            ]
            if positions:
                sent = replace(
                    outcomes_of(positions, found),
                    refused_positions=refused,
                    signal=[self.chance.choice(SIGNALS) for _ in refused],
                    value=["noai"] * len(refused),
                    source=["https://host.example/robots.txt"] * len(refused),
                    age=[1.0] * len(refused),
                    sizes=[
                        self.chance.randrange(1000, 90_000) if isinstance(each, bytes) else None
                        for each in found
                    ],
                    width=[
                        self.chance.randrange(30, 3000) if isinstance(each, bytes) else None
                        for each in found
                    ],
                )
                queue.submit_download(claim.lease_id, part, sent)
        queue.complete(claim.lease_id)
        self._accept()
        return True

    def _image(self, n: int) -> bytes:
        """sha256 of an image: one in five is the same everywhere."""
        name = "everywhere" if self.chance.random() < 0.2 else str((n, self.chance.random()))
        return hashlib.sha256(name.encode()).digest()

    def _score(self, digest: str) -> bool:
        claim = self.db.claim("score", digest=digest)
        if claim is None:
            return False
        queue, _ = self.db.queue("score")
        left = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 20_000)]
        for part in range(PARTS):
            if not left[part::PARTS]:
                continue
            rows = []
            for row in score_rows(claim.lease_id, part, left[part::PARTS]):
                if self.chance.random() < 0.1:
                    rows.append((*row[:3], int(ScoreOutcome.BROKEN_THUMBNAIL), None, None, None, 5))
                else:
                    rows.append((*row[:4], self.chance.uniform(0.1, 0.4), *row[5:]))
            good = [row[2] for row in rows if row[3] == 0]
            tags = [
                (claim.lease_id, part, self.tagger, n, None, self.chance.uniform(0, 10))
                for n in good
                if digest == "d1"
            ]
            queue.copy_scores(rows)
            queue.copy_tags(tags)
            queue.submit_score(claim.lease_id, part, len(rows), len(tags))
        queue.complete(claim.lease_id)
        self._accept()
        return True

    def _withdraw(self, kind: str) -> None:
        """A third of the submissions of a kind, and one extraction."""
        accepted = self.db.rows(
            "select submission_id from mill.submission s join mill.task t using (task_id)"
            " where t.kind = %s and s.state = 'accepted' and not exists"
            " (select from mill.withdrawn w where w.submission_id = s.submission_id) order by 1",
            kind,
        )
        several = len(accepted) // 3 if kind != "extract" else 1
        for (number,) in self.chance.sample(accepted, several):
            self.db.admin.execute("select mill.withdraw(%s, 'it was wrong')", (number,))

    def _accept(self) -> None:
        assert {answer[3] for answer in self.db.accept_all()} <= {None}

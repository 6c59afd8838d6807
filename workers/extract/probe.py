"""The probe: whether it pays to ask which links of a file are known, before they are tagged and
copied."""

from pairmill.workers.extract.rows import PAIRS_PER_PART

# Share of the links known from which on every part is asked. A question takes 14 µs of CPU a link,
# most of it the server's; a known link that is neither tagged nor copied nor merged saves 62: even
# at 23 % (2,000,000 known URLs; the median of three files). The rest is room for an index on disk.
PAYS = 1 / 3
ASKED_WHEN_OFF = 8  # every eighth part, 2 µs a link; a file of Common Crawl has about 20
KEYS_PER_LEASE = 1_900_000  # api.probe_v1 takes 2,000,000, and counts what was asked again
REMEMBERED = 0.5  # of what was learned before, each time something is learned


class UrlProbe:
    """What the last answers said, from file to file of one worker's process.

    The first part is asked. From then on every one where a third of the last links was known, the
    newest counting most, and every eighth where it was less: in a young database.
    """

    def __init__(self) -> None:
        self._asked = self._known = 0.0  # of the last answers
        self._passed = 0  # parts since the last one that was asked
        self.begin()

    def begin(self) -> None:
        """A file begins. ``asked`` and ``known``: links of the file."""
        self.asked = self.known = 0
        self._refused = False

    def refused(self) -> None:
        """The database took a question too long, or refused it: the file goes on without."""
        self._refused = True

    @property
    def pays(self) -> bool:
        return self._known >= PAYS * self._asked

    def wanted(self) -> bool:
        """Whether to ask about the next part. Called once for each."""
        if self._refused or self.asked + PAIRS_PER_PART > KEYS_PER_LEASE:
            return False
        if self.pays or self._passed + 1 >= ASKED_WHEN_OFF:
            self._passed = 0
            return True
        self._passed += 1
        return False

    def learn(self, asked: int, known: int) -> None:
        """An answer: of so many links so many were known."""
        self._asked = REMEMBERED * self._asked + asked
        self._known = REMEMBERED * self._known + known
        self.asked += asked
        self.known += known

    def said(self) -> str:
        """A line's part about the file; empty where nobody was ever asked."""
        if not self._asked:
            return ""
        if self.pays and self.asked:
            return f"probe: {_percent(self.known, self.asked)} of {self.asked:,} known"
        return f"probe off: {_percent(self._known, self._asked)} known"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"

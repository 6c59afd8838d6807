"""A Bloom filter in front of mill.seen_url: says which URLs are certainly new.

Bloom, Space/time trade-offs in hash coding with allowable errors, CACM 13(7), 1970. Bits and
hashing are rbloom's. What it has never seen needs no look at an index that has outgrown
memory. It is only believed while it is in step with the table (``api.merge_number_v1``), and
the table's unique index has the last word: a filter that was wrong is dropped and made anew.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rbloom import Bloom

from pairmill.workers.steward.calls import Accepted, StewardQueue

FALSE_POSITIVES = 0.01  # 9.6 bits a URL: 1.2 GB for 10^9
HEADROOM = 1_000_000  # URLs for which there is room at least before it is made anew
KEY = 16  # bytes
PARTITIONS = 16  # of mill.seen_url


def _hash(key: bytes) -> int:
    return int.from_bytes(key, "big", signed=True)  # an md5: as good as any hash


@dataclass(frozen=True)
class Filtered:
    """How an acceptance went. asked: keys of the extraction; unknown: of these, the ones that
    the filter had never seen; used: whether the database went by it."""

    accepted: Accepted
    asked: int = 0
    unknown: int = 0
    used: bool = False


class UrlFilter:
    """The filter of one steward, kept in ``path`` (and ``path``.json) between its runs. Each
    database needs a file of its own.

    trusted: whether what the filter has seen counts as known without a look. Then no key is
    looked up, and one new URL in a hundred (``FALSE_POSITIVES``) is taken for a duplicate and
    lost. Otherwise the price of a false positive is one look into the index.
    """

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self._path = path
        self._about = path.with_name(path.name + ".json")
        self.trusted = trusted
        self._bloom: Bloom | None = None
        self._merge_number = -1  # the table's, that the filter has every key of
        self._keys = self._capacity = 0

    def accept_next(self, queue: StewardQueue) -> Filtered | None:
        """Accept the next submission by the filter; None where none waits."""
        staged = queue.staged_keys()
        if staged is None:
            accepted = queue.accept_next()
            return Filtered(accepted) if accepted else None
        submission_id, number, packed = staged
        if self._bloom is None or number != self._merge_number:
            self.build(queue)
            number = self._merge_number
        assert self._bloom is not None
        keys = [packed[at : at + KEY] for at in range(0, len(packed), KEY)]
        unknown = [key for key in keys if key not in self._bloom]
        accepted, used = queue.accept_filtered(
            submission_id, number, b"".join(unknown), trusted=self.trusted
        )
        if accepted is None:  # it was wrong, or the data is: nothing was accepted yet
            self._bloom = None
            accepted = queue.accept_next()
            return Filtered(accepted) if accepted else None
        rejected = accepted[3] is not None
        if used and queue.merge_number() == number + 1:  # the only merge since was this one
            self._merge_number = number + 1
            if not rejected:
                self._add(unknown)
        return Filtered(accepted, len(keys), len(unknown), used)

    def build(self, queue: StewardQueue) -> None:
        """Load what was saved, if it is in step; else read every key of the table."""
        number = queue.merge_number()
        if self._load(number):
            return
        first = list(queue.known_keys(0))  # a sixteenth of all: md5 is uniform
        self._capacity = 2 * PARTITIONS * len(first) + HEADROOM
        self._bloom, self._keys = Bloom(self._capacity, FALSE_POSITIVES, _hash), 0
        self._add(first)
        for remainder in range(1, PARTITIONS):
            self._add(queue.known_keys(remainder))
        # keys that came while they were read make the number stale, and the next use says so
        self._merge_number = number

    def _add(self, keys: Iterable[bytes]) -> None:
        assert self._bloom is not None
        for key in keys:
            self._bloom.add(key)
            self._keys += 1
        if self._keys > self._capacity:
            self._bloom = None  # fuller, it would say "perhaps" ever more often

    def _load(self, number: int) -> bool:
        try:
            about = json.loads(self._about.read_text())
            self._about.unlink()  # a run that ends without saving leaves none: it would be behind
            if about["merge_number"] != number:
                return False
            self._bloom = Bloom.load(str(self._path), _hash)
            self._merge_number, self._keys = number, int(about["keys"])
            self._capacity = int(about["capacity"])
        except (OSError, ValueError, KeyError, TypeError):
            self._bloom = None  # none, or a damaged one: it is made anew
            return False
        return True

    def save(self) -> None:
        """Keep it for the next run; a filter that is not in step then is made anew."""
        if self._bloom is None:
            return
        self._bloom.save(str(self._path))
        about = {
            "merge_number": self._merge_number, "keys": self._keys, "capacity": self._capacity,
        }  # fmt: skip
        self._about.write_text(json.dumps(about))

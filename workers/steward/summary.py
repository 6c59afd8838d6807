"""What a steward did, in a line a minute."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pairmill.workers.steward.calls import Accepted
from pairmill.workers.tally import counted, lasting, many

EVERY_SECONDS = 60.0
# by maintenance function, what each changes; the others' numbers tell an operator nothing
CHANGES = {
    "expire_leases": ("lease expired", "leases expired"),
    "close_batches": ("batch closed", "batches closed"),
    "judge_replications": ("replication judged", "replications judged"),
    "empty_slots": ("slot emptied", "slots emptied"),
}


@dataclass
class _Counts:
    """Of a time: submissions accepted, and their rows, by kind; rejected; changes by function."""

    submissions: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)

    def sentence(self) -> str:
        """Empty where nothing was done."""
        accepted = [
            f"{kind} {many(self.rows[kind], 'row')} in {many(count, 'submission')}"
            for kind, count in self.submissions.most_common()
        ]
        parts = ["accepted " + ", ".join(accepted)] if accepted else []
        if self.rejected:
            parts.append(f"rejected {counted(self.rejected)}")
        parts += [many(n, *CHANGES[name]) for name in CHANGES if (n := self.changes[name])]
        return "; ".join(parts)


class Summary:
    """Says once a minute what was done since, and at the end what was done in all. A rejection is
    said at once. verbose: every acceptance and every change is. clock: as time.monotonic."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._verbose, self._clock = say, verbose, clock
        self._all, self._new = _Counts(), _Counts()
        self._begun = self._said = clock()

    def accepted(self, accepted: Accepted) -> None:
        submission_id, kind, rows, rejected_because = accepted
        for counts in (self._all, self._new):
            if rejected_because:
                counts.rejected[kind] += 1
            else:
                counts.submissions[kind] += 1
                counts.rows[kind] += rows
        if rejected_because:
            self._say(f"submission {submission_id} ({kind}) rejected: {rejected_because}")
        elif self._verbose:
            self._say(f"submission {submission_id} accepted: {kind}, {rows:,} rows")

    def changed(self, name: str, count: int) -> None:
        """A maintenance function's answer."""
        if count <= 0 or name not in CHANGES:
            return
        self._all.changes[name] += count
        self._new.changes[name] += count
        if self._verbose:
            self._say(many(count, *CHANGES[name]))

    def look(self) -> None:
        """To be called often: says what is due."""
        if self._clock() - self._said >= EVERY_SECONDS:
            self._say_new()

    def end(self) -> None:
        if self._said > self._begun:  # else both would say the same
            self._say_new()
        if did := self._all.sentence():
            self._say(f"ends after {lasting(self._clock() - self._begun)}: {did}")

    def _say_new(self) -> None:
        now = self._clock()
        if did := self._new.sentence():
            self._say(f"in {lasting(now - self._said)}: {did}")
        self._new, self._said = _Counts(), now

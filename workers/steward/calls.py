"""The functions of schema ``api`` that a steward calls."""

from collections.abc import Iterator

from pairmill.workers.queue import Queue

# (submission, kind, rows, the reason of its rejection or None)
Accepted = tuple[int, str, int, str | None]


class StewardQueue(Queue):
    """The queue as a steward's login may use it."""

    def accept_next(self) -> Accepted | None:
        """Accept the oldest submission; None when nothing waits."""
        return self._row("select * from api.accept_next_v1()", ())

    def accept_filtered(
        self, submission_id: int, merge_number: int, unknown: bytes, *, trusted: bool
    ) -> tuple[Accepted | None, bool]:
        """Accept the oldest submission, by a filter's answer where that is ``submission_id``.

        unknown: keys that are certainly new, 16 bytes each. Returns the accepted submission, None
        where the filter was wrong; and whether the filter's answer was used.
        """
        call = "select * from api.accept_filtered_v1(%s, %s, %b, %s)"
        row = self._row(call, (submission_id, merge_number, unknown, trusted))
        if row is None or row[4] is None:
            return None, False
        return row[:4], row[4]

    def staged_keys(self) -> tuple[int, int, bytes] | None:
        """(submission, merge number, its URL keys of 16 bytes) of the submission that is to be
        accepted next; None where there is none, or it is no extraction."""
        row = self._row("select * from api.staged_keys_v1()", ())
        return (row[0], row[1], bytes(row[2] or b"")) if row else None

    def merge_number(self) -> int:
        return int(self._one("select api.merge_number_v1()", ())[0])

    def known_keys(self, remainder: int) -> Iterator[bytes]:
        """The keys of one of the 16 partitions of mill.seen_url, 16 bytes each."""
        # text: 32 hexadecimal digits and four hyphens, and nothing of psycopg's a row
        for line in self._stream_lines(f"select * from api.known_keys_v1({int(remainder)})"):
            yield bytes.fromhex(line.decode().replace("-", ""))

    def counts(self) -> list[tuple[str, str, float]]:
        """(kind, name, value) of the queue: tasks by state, the oldest ready one's age in seconds,
        late leases, submissions that wait, slots of thumbnails that are in use."""
        return self._rows("select * from api.metrics_v1()", ())

    def maintain(self, name: str) -> int:
        """Run one maintenance function: expire_leases, sweep_inbox, sweep_host_files,
        sweep_gold_questions, close_batches, judge_replications, empty_slots or ensure_partitions.
        Returns the number of things that it changed."""
        return int(self._one(f"select api.{name}_v1()", ())[0] or 0)

    def watchdog(self) -> int | None:
        """End sessions of workers that keep a transaction open. Returns how many; None without
        the right, which `pairmill db secure` gives."""
        row = self._one("select api.watchdog_v1()", ())
        return None if row[0] is None else int(row[0])

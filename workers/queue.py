"""The functions of schema ``api`` as methods: all that a worker may ask of the database."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from pairmill import __version__
from pairmill.workers.errors import LeaseLost, Malformed, Refused, Unreachable, WorkerError

PROTOCOL = 1
PATIENCE = 15.0  # seconds to wait for a database at the start
# SQLSTATEs of schema/sql/guards.sql
ERRORS: dict[str, type[WorkerError]] = {
    "PM001": LeaseLost,
    "PM002": Refused,
    "PM003": Malformed,
    "PM004": Refused,
    "PM005": Malformed,
    "PM006": Refused,
    "23514": Malformed,  # check_violation: a row that an inbox does not take
    "57014": Malformed,  # statement_timeout: the same call would only take as long again
}
# a connection that fails carries no SQLSTATE, only the server's words
LOGIN_REFUSED = (
    "password authentication failed",
    "is not permitted to log in",
    "does not exist",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects connection",
    "requires a valid client certificate",
    "permission denied for database",
)
# url_key is a uuid there: its 16 bytes are the same, and a UUID object costs 1 µs a row
PAIR_TYPES = ("int8", "int4", "bytea", "text", "text", "text", "float4", "text", "text")
SCORE_TYPES = ("int8", "int4", "int4", "int2", "float4", "bytea", "bytea", "int2")
TAG_TYPES = ("int8", "int4", "int4", "int4", "int2", "float4")
COPY_PAIRS = (
    "copy inbox.pair (lease_id, ordinal, url_key, url, text, language,"
    " language_probability, license, link_kind) from stdin (format binary)"
)
COPY_SCORES = (
    "copy inbox.score (lease_id, part, n, outcome, similarity, image, text, text_tokens)"
    " from stdin (format binary)"
)
COPY_TAGS = "copy inbox.tag (lease_id, part, model_id, n, label, value) from stdin (format binary)"
Answer = TypeVar("Answer")


# (submission, kind, rows, why it was rejected or None)
Accepted = tuple[int, str, int, str | None]


@dataclass(frozen=True)
class Hello:
    instance_id: int
    name: str
    kind: str
    heartbeat_seconds: int


@dataclass(frozen=True)
class Claim:
    lease_id: int
    task_id: int
    payload: dict[str, Any]
    model_digest: str | None = None


@dataclass(frozen=True)
class Tagger:
    """A tagger of the scorer's clip model; kind: head, zero-shot or pixels."""

    model_id: int
    name: str
    kind: str
    digest: str


@dataclass
class Outcomes:
    """Columns of a download submission, parallel lists; see ``mill.submission_download``."""

    positions: list[int]
    outcome: list[int]
    http_status: list[int | None]
    sizes: list[int | None]
    width: list[int | None]
    height: list[int | None]
    md5: list[UUID | None]
    sha256: list[bytes | None]
    dhash: list[int | None]
    thumbnail_positions: list[int]
    thumbnails: list[bytes]
    # of the positions that opted out, their evidence: ``mill.opt_out``; age in seconds
    refused_positions: list[int] = field(default_factory=list)
    signal: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    age: list[float] = field(default_factory=list)


@dataclass
class OptOuts:
    """What files of hosts said, parallel lists; see ``mill.host_file``. age in seconds."""

    origin: list[str]
    file: list[str]
    http_status: list[int | None]
    rules: list[str]
    age: list[float]


class Queue:
    """One connection to the database, shared by the threads of a process one call at a time.

    A call that loses its connection is made again on a new one: every function may be
    repeated. A repeated ``complete`` or ``release`` whose first answer was lost raises
    LeaseLost, which is the truth.

    Raises Refused, Malformed or LeaseLost where the database says so, Unreachable when it
    cannot be reached for ``patience`` seconds.
    """

    def __init__(self, dsn: str, *, patience: float = PATIENCE) -> None:
        self._dsn = dsn
        self.patience = patience
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def hurry(self) -> None:
        """From now on, give up at the first failed connection: the process is ending."""
        self._hurry.set()

    def hello(self) -> Hello:
        return Hello(*self._one("select * from api.hello_v1(%s, %s)", (__version__, PROTOCOL)))

    def claim(self, instance_id: int, model_digest: str | None = None) -> Claim | None:
        row = self._row("select * from api.claim_v1(%s, %s)", (instance_id, model_digest))
        return Claim(row[0], row[1], row[2], model_digest) if row else None

    def heartbeat(self, lease_id: int) -> int:
        return int(self._one("select api.heartbeat_v1(%s)", (lease_id,))[0])

    def release(self, lease_id: int) -> None:
        self._one("select api.release_v1(%s)", (lease_id,))

    def fail(self, lease_id: int, reason: str, *, retry: bool) -> None:
        reason = reason.replace("\x00", "")  # PostgreSQL text holds no NUL
        self._one("select api.fail_v1(%s, %s, %s)", (lease_id, reason, retry))

    def complete(self, lease_id: int) -> None:
        self._one("select api.complete_v1(%s)", (lease_id,))

    def drained(self, model_digest: str | None = None) -> bool:
        return bool(self._one("select api.drained_v1(%s)", (model_digest,))[0])

    def me(self) -> dict[str, Any]:
        names = ("name", "kind", "added_at", "live_leases",
                 "rows_accepted", "rows_waiting", "rows_rejected")  # fmt: skip
        return dict(zip(names, self._one("select * from api.me_v1()", ()), strict=True))

    # ---- extract -----------------------------------------------------------------------------

    def copy_pairs(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.pair: (lease_id, ordinal, url_key (16 bytes), url, text, language,
        probability, license, link_kind). A repeat after a lost answer would double them;
        submit_extract finds out."""
        self._copy_in(COPY_PAIRS, PAIR_TYPES, rows)

    def submit_extract(
        self, lease_id: int, rows: int, counts: Iterable[tuple[str, str, str, int]]
    ) -> int:
        """counts: (link kind, stage, name, count), as mill.wat_count keeps them."""
        kinds, stages, names, numbers = map(list, zip(*counts, strict=True))
        call = (
            "select api.submit_extract_v1(%s, %s, %s::text[], %s::text[], %s::text[], %s::bigint[])"
        )
        return int(self._one(call, (lease_id, rows, kinds, stages, names, numbers))[0])

    # ---- download ----------------------------------------------------------------------------

    def urls(self, lease_id: int) -> list[tuple[int, str]]:
        return self._rows("select * from api.urls_v1(%s)", (lease_id,))

    def opt_outs(self, lease_id: int) -> list[tuple[str, str, int | None, str, float]]:
        """What is known already of the hosts of this batch: (origin, file, HTTP status, rules,
        time.time() when it was read)."""
        found = self._rows("select * from api.opt_outs_v1(%s)", (lease_id,))
        now = time.time()  # of this machine: the database gives ages
        return [(*row[:4], now - row[4]) for row in found]

    def submit_opt_outs(self, lease_id: int, o: OptOuts) -> int:
        call = (
            "select api.submit_opt_outs_v1(%s, %s::text[], %s::text[], %s::smallint[],"
            " %s::text[], %s::real[])"
        )
        arguments = (lease_id, o.origin, o.file, o.http_status, o.rules, o.age)
        return int(self._one(call, arguments)[0])

    def submit_download(self, lease_id: int, part: int, o: Outcomes) -> int:
        columns: list[tuple[str, str, list[Any]]] = [
            ("positions", "integer", o.positions), ("outcome", "smallint", o.outcome),
            ("http_status", "smallint", o.http_status), ("bytes", "integer", o.sizes),
            ("width", "integer", o.width), ("height", "integer", o.height), ("md5", "uuid", o.md5),
            ("sha256", "bytea", o.sha256), ("dhash", "bigint", o.dhash),
            ("thumbnail_positions", "integer", o.thumbnail_positions),
            ("thumbnails", "bytea", o.thumbnails), ("refused", "integer", o.refused_positions),
            ("signal", "text", o.signal), ("value", "text", o.value), ("source", "text", o.source),
            ("age", "real", o.age),
        ]  # fmt: skip
        # binary: 10,000 rows take 13 ms to pack, and 35 as text; but a list without a value has
        # no type that binary could be of
        given = ", ".join(
            f"p_{name} => {'%b' if any(v is not None for v in values or ()) else '%s'}::{kind}[]"
            for name, kind, values in columns
        )
        call = f"select api.submit_download_v1(%s, %s, {given})"
        return int(self._one(call, (lease_id, part, *(c[2] for c in columns)))[0])

    # ---- score -------------------------------------------------------------------------------

    def thumbnails(self, lease_id: int, start: int, stop: int) -> list[tuple[int, str, bytes, int]]:
        """(n, text, image, dHash of the image's original) of the positions from start up to, not
        including, stop."""
        types = ("int4", "text", "bytea", "int8")
        found = self._copy_out("thumbnails_v1", (lease_id, start, stop), types)
        return [(n, text, bytes(image), dhash) for n, text, image, dhash in found]

    def embeddings(self, lease_id: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        """(n, image embedding: float16, little-endian) of these positions of a head's task."""
        found = self._copy_out("embeddings_v1", (lease_id, start, stop), ("int4", "bytea"))
        return [(n, bytes(image)) for n, image in found]

    def taggers(self, model_digest: str) -> list[Tagger]:
        return [
            Tagger(*row) for row in self._rows("select * from api.taggers_v1(%s)", (model_digest,))
        ]

    def weights(self, digest: str) -> bytes | None:
        """The safetensors file of a head or a zero-shot tagger; None where there is none."""
        row = self._row("select weights from api.weights_v1(%s)", (digest,))
        return bytes(row[0]) if row else None

    def copy_scores(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.score: (lease_id, part, n, outcome, similarity, image, text, tokens)."""
        self._copy_in(COPY_SCORES, SCORE_TYPES, rows)

    def copy_tags(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.tag: (lease_id, part, model_id, n, label, value)."""
        self._copy_in(COPY_TAGS, TAG_TYPES, rows)

    def submit_score(self, lease_id: int, part: int, scores: int, tags: int = 0) -> int:
        call = "select api.submit_score_v1(%s, %s, %s, %s)"
        return int(self._one(call, (lease_id, part, scores, tags))[0])

    # ---- steward -----------------------------------------------------------------------------

    def accept_next(self) -> Accepted | None:
        """Accept the oldest submission; None when nothing waits."""
        return self._row("select * from api.accept_next_v1()", ())

    def accept_filtered(
        self, submission_id: int, merge_number: int, unknown: bytes, *, trusted: bool
    ) -> tuple[Accepted | None, bool]:
        """Accept the oldest submission, by what a filter says where that is ``submission_id``.

        unknown: keys that are certainly new, 16 bytes each. Gives what was accepted, None
        where the filter was wrong; and whether it was gone by.
        """
        call = "select * from api.accept_filtered_v1(%s, %s, %b, %s)"
        row = self._row(call, (submission_id, merge_number, unknown, trusted))
        if row is None or row[4] is None:
            return None, False
        return row[:4], row[4]

    def staged_keys(self) -> tuple[int, int, bytes] | None:
        """(submission, merge number, its URL keys of 16 bytes) of the extraction that is to be
        accepted next; None where that is none."""
        row = self._row("select * from api.staged_keys_v1()", ())
        return (row[0], row[1], bytes(row[2] or b"")) if row else None

    def merge_number(self) -> int:
        return int(self._one("select api.merge_number_v1()", ())[0])

    def known_keys(self, remainder: int) -> Iterator[bytes]:
        """The keys of one of the 16 partitions of mill.seen_url, 16 bytes each."""
        statement = f"copy (select * from api.known_keys_v1({int(remainder)})) to stdout"
        # text: 32 hexadecimal digits and four hyphens, and nothing of psycopg's a row
        with (
            self._lock, self._translated(), self._connected().cursor() as cursor,
            cursor.copy(f"{statement} (format text)") as copy,
        ):  # fmt: skip
            rest = b""
            for data in copy:
                lines = (rest + bytes(data)).split(b"\n")
                rest = lines.pop()
                yield from (bytes.fromhex(line.decode().replace("-", "")) for line in lines)

    def counts(self) -> list[tuple[str, str, float]]:
        """(kind, what, value) of the queue: tasks by state, the oldest ready one's age in seconds,
        late leases, submissions that wait, slots of thumbnails that are in use."""
        return self._rows("select * from api.metrics_v1()", ())

    def steward(self, chore: str) -> int:
        """Run one of the steward's chores: expire_leases, sweep_inbox, sweep_host_files,
        sweep_canaries, close_batches, judge_checks, empty_slots, ensure_partitions. Returns how
        much there was of it."""
        return int(self._one(f"select api.{chore}_v1()", ())[0] or 0)

    def watchdog(self) -> int | None:
        """End sessions of workers that keep a transaction open. Returns how many; None without
        the right, which `pairmill db secure` gives."""
        row = self._one("select api.watchdog_v1()", ())
        return None if row[0] is None else int(row[0])

    # ---- the connection ----------------------------------------------------------------------

    def _one(self, call: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        row = self._row(call, arguments)
        assert row is not None, f"{call} returned no row"
        return row

    def _row(self, call: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
        rows = self._rows(call, arguments)
        return rows[0] if rows else None

    def _rows(self, call: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._retrying(lambda c: c.execute(call, arguments).fetchall())

    def _copy_in(
        self, statement: str, types: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        def write(connection: psycopg.Connection[Any]) -> None:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)

        self._retrying(write)

    def _copy_out(
        self, function: str, numbers: Sequence[int], types: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        # COPY takes no parameters: literals
        arguments = ", ".join(str(int(number)) for number in numbers)
        statement = f"copy (select * from api.{function}({arguments})) to stdout (format binary)"

        def read(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                return list(copy.rows())

        return self._retrying(read)

    def _retrying(self, work: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        give_up = time.monotonic() + self.patience
        delay = 0.2
        with self._lock:
            while True:
                try:
                    with self._translated():
                        return work(self._connected())
                except psycopg.OperationalError as error:
                    self._disconnect()
                    if self._hurry.wait(delay) or time.monotonic() > give_up:
                        raise Unreachable(f"cannot reach the database: {error}".strip()) from None
                delay = min(2 * delay, 5.0)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            kind = ERRORS.get(error.sqlstate or "")
            if kind is not None:
                raise kind(error.diag.message_primary or str(error)) from None
            if error.sqlstate in ("3F000", "42883"):  # no such schema, no such function
                raise Refused(
                    "this database lacks what the worker calls; an admin runs: pairmill migrate"
                ) from None
            if any(sentence in str(error) for sentence in LOGIN_REFUSED):
                raise Refused(f"the database refuses this login: {error}".strip()) from None
            raise

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=None,  # a pooler in transaction mode keeps no statements
                row_factory=tuple_row,
                connect_timeout=10,
                application_name=f"pairmill/{__version__}",
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

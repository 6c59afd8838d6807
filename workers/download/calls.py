"""The functions of schema ``api`` that a download worker calls."""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pairmill.workers.queue import Queue


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
    sha1: list[bytes | None]
    sha256: list[bytes | None]
    dhash: list[int | None]
    pdq: list[bytes | None]
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
    """Opt-out files of hosts as they were read, parallel lists; see ``mill.host_file``. age in
    seconds."""

    origin: list[str]
    file: list[str]
    http_status: list[int | None]
    rules: list[str]
    age: list[float]


class DownloadQueue(Queue):
    """The queue as a download worker's login may use it."""

    def urls(self, lease_id: int) -> list[tuple[int, str]]:
        return self._rows("select * from api.urls_v1(%s)", (lease_id,))

    def opt_outs(self, lease_id: int) -> list[tuple[str, str, int | None, str, float]]:
        """Opt-out files of this batch's hosts that some worker has read: (origin, file, HTTP
        status, rules, time.time() of the reading)."""
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
            ("sha1", "bytea", o.sha1), ("sha256", "bytea", o.sha256), ("dhash", "bigint", o.dhash),
            ("pdq", "bytea", o.pdq),
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

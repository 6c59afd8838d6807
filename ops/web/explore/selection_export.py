"""Exports of what a filter takes: Parquet in the release's layout, or DataComp's file of a subset.

The rows are streamed, 65,536 at a time; MOST of them at most, one export of a visitor's network at
a time and two of all visitors. The answer is whole or it breaks off: its last bytes are the file's
footer.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pairmill.ops.release.keep_list_ids import IDS
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.release_rows import OpenRelease
from pairmill.ops.web.explore.row_filters import AskedRows, conditions, parse
from pairmill.ops.web.explore.row_pages import served
from pairmill.ops.web.explore.row_summaries import values_of, where
from pairmill.ops.web.limits import Gate, Rate

MOST = 1_000_000  # rows
PIECE = 10_000  # rows that are in memory at once, of each export
SECONDS = 60.0  # of the query for the ids
RATE = "6/minute;60/hour"


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    gate, rate = Gate(2, 4, patience=10.0), Rate(RATE)

    async def export(request: Request) -> Response:
        rate.check(request)
        ending = request.path_params["ending"]
        if ending not in ("parquet", "npy"):
            raise HTTPException(404, "an export is .parquet or .npy")
        release = served(settings, request.path_params["name"])
        if release.partial:
            raise HTTPException(
                503, "exports wait for the release's working copy", {"Retry-After": "60"}
            )
        async with gate:
            asked = await run_in_threadpool(parse, request.query_params.multi_items(), release)
            found = await run_in_threadpool(selected, release, asked)
        stream = _parquet if ending == "parquet" else _npy
        name = f"selection-of-{len(found[0])}.{ending}"
        return StreamingResponse(
            _gated(gate, stream(settings, release, found)),
            media_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return [Route("/r/{name}/export.{ending}", export, methods=["GET"])]


async def _gated(gate: Gate, pieces: Iterator[bytes]) -> Any:
    """The pieces, made in threads while there is room for an export."""
    async with gate:
        while (piece := await run_in_threadpool(next, pieces, None)) is not None:
            yield piece


Selected = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


def selected(release: OpenRelease, asked: AskedRows) -> Selected:
    """SAMPLE_IDs and positions, in order. Raises HTTPException 413 for more than MOST."""
    wanted = conditions(asked.filter, release)
    query = (
        f"select _id, _position from {release.relation} where {where(wanted)}"
        f" order by _position limit {MOST + 1}"
    )
    table = release.at.duck.table(query, values_of(wanted), SECONDS)
    if len(table) > MOST:
        raise HTTPException(
            413, f"an export has at most {MOST:,} rows: narrow the filter, or load the release"
        )
    return table["_id"].to_numpy(), table["_position"].to_numpy()


def _shown(settings: ExploreSettings, ids: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Which of the ids may be shown, bool[n]."""
    gone: set[int] = settings.releases.hidden(ids.tolist())
    shown: np.ndarray[Any, Any] = ~np.isin(ids, np.fromiter(gone, np.int64, len(gone)))
    return shown


def _parquet(settings: ExploreSettings, release: OpenRelease, found: Selected) -> Iterator[bytes]:
    schema = release.schema
    copied = release.at.copied
    assert schema is not None and copied is not None
    ids, positions = found
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for start in range(0, len(ids), PIECE):
            piece = slice(start, start + PIECE)
            taken = positions[piece][_shown(settings, ids[piece])]
            writer.write_table(copied.table(taken).select(schema.names).cast(schema))
            yield _taken(out)
    yield _taken(out)


def _taken(out: io.BytesIO) -> bytes:
    """What was written since the last time. The writer never goes back."""
    written = out.getvalue()
    out.seek(0)
    out.truncate()
    return written


def _npy(settings: ExploreSettings, release: OpenRelease, found: Selected) -> Iterator[bytes]:
    """The number of ids stands first, so that removed ones are left out before."""
    ids = found[0]
    kept = [
        part[_shown(settings, part)]
        for start in range(0, len(ids), PIECE)
        for part in [ids[start : start + PIECE]]
    ]
    named = np.zeros(sum(map(len, kept)), IDS)
    if kept:
        named["f1"] = np.concatenate(kept)
    out = io.BytesIO()
    header = {"descr": IDS.descr, "fortran_order": False, "shape": (len(named),)}
    np.lib.format.write_array_header_1_0(out, header)
    yield out.getvalue()
    for start in range(0, len(named), PIECE):
        yield named[start : start + PIECE].tobytes()

"""Scoring by a model of pairs that were downloaded before it was added."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

BATCHES = (
    100  # a transaction: a million pairs; what is queued stays where the command is interrupted
)


@dataclass
class Backfill:
    """The work that is queued for a model.

    batches, urls: downloads, and the images that they fetch again, of ``bytes`` bytes when they
    came first. score_tasks: tasks that need no download. in_vain: URLs left out, since they gave
    no such image again. busy: batches left out, whose backfill or whose scoring by the model is
    under way. days: time that the downloads take at the rate of the last 24 hours; None where
    nothing was downloaded in them. has_worker: whether a worker that has the model was seen in
    the last ten minutes.
    """

    batches: int = 0
    urls: int = 0
    bytes: int = 0
    score_tasks: int = 0
    in_vain: int = 0
    busy: int = 0
    days: float | None = None
    has_worker: bool = False


def queue(
    connection: psycopg.Connection,
    model: dict[str, Any],
    first: int,
    last: int,
    *,
    dry_run: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Backfill:
    """Queue what a row of ``models.one`` needs for the batches from ``first`` to ``last``.

    progress is called with the batches that were looked at and their total. Raises UserError where
    the model is retired.
    """
    if model["retired_at"]:
        raise UserError(
            f"{model['name']} is retired, and scores nothing: `pairmill model add` with the same"
            " weights makes it active again"
        )
    (end,) = rows(connection, "select coalesce(max(batch_id), -1) as batch from mill.batch")
    last = min(last, end["batch"])
    whole = Backfill()
    for start in range(first, last + 1, BATCHES):
        stop = min(start + BATCHES - 1, last)
        with connection.transaction(force_rollback=dry_run):
            (part,) = rows(
                connection,
                "select * from mill.backfill_model(%s, %s, %s)", model["model_id"], start, stop,
            )  # fmt: skip
        for name, count in part.items():
            setattr(whole, name, getattr(whole, name) + int(count))
        progress(stop - first + 1, last - first + 1)
    whole.days = _days(connection, whole.urls)
    whole.has_worker = _has_worker(connection, model["model_id"])
    return whole


def _days(connection: psycopg.Connection, urls: int) -> float | None:
    query = query_text("admin", "last_day")
    (last_day,) = rows(connection, query, "download")
    return urls / last_day["rows"] if last_day["rows"] else None


def _has_worker(connection: psycopg.Connection, model_id: int) -> bool:
    (found,) = rows(
        connection,
        "select exists (select from mill.claimant where model_id = %s"
        " and seen_at > now() - interval '10 minutes') as found",
        model_id,
    )
    return bool(found["found"])

"""New downloads of URLs whose failure may have passed."""

from collections.abc import Sequence
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

LAST = 2**62
BACKFILL = "`pairmill model backfill NAME` fetches what a model that came later needs"


def batch_range(batches: str) -> tuple[int, int]:
    """The first and the last batch of FIRST-LAST, of one number, or, of an empty text, of all."""
    if not batches:
        return 0, LAST
    first, dash, last = batches.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UserError(f"--batches is FIRST-LAST or one number, not {batches!r}")
    if max(len(first), len(last)) > 19:  # and Python reads none of more than 4,300 digits
        raise UserError(f"--batches {batches[:60]}: no batch has such a number")
    if dash and int(first) > int(last):
        raise UserError(f"--batches {batches}: the first is above the last")
    if max(int(first), int(last or 0)) > LAST:
        raise UserError(f"--batches {batches}: no batch has such a number")
    return int(first), int(last or first)


def known_outcomes(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """The outcomes of downloads, each with whether a retry can help."""
    return rows(connection, "select name, retry from report.outcome order by code")


def retry_urls(
    connection: psycopg.Connection,
    outcomes: Sequence[str],
    batches: str,
    *,
    now: bool,
    doubted: bool,
    dry_run: bool,
) -> dict[str, Any]:
    """Queue URLs again whose download ended so (of none: with what a retry can help), or, doubted,
    the dead links that one network has seen; what was queued, as mill.retry_outcomes says it. now:
    without a back-off. Raises UserError where an outcome is none, or is success."""
    first, last = batch_range(batches)
    if "success" in outcomes:
        raise UserError(f"success is no failure, and is never retried: {BACKFILL}")
    if unknown := sorted(set(outcomes) - {row["name"] for row in known_outcomes(connection)}):
        raise UserError(
            f"no such outcome: {', '.join(unknown)}; `pairmill retry --outcome list` shows them"
        )
    if doubted and (outcomes or now):
        raise UserError("--doubted chooses by itself: leave --outcome and --now out")
    call, arguments = (
        ("mill.retry_doubted(%s, %s)", (first, last))
        if doubted
        else ("mill.retry_outcomes(%s, %s, %s, %s)", (list(outcomes) or None, first, last, now))
    )
    with connection.transaction(force_rollback=dry_run):
        (queued,) = rows(connection, f"select * from {call}", *arguments)
    return queued


def queued_sentence(
    queued: dict[str, Any], batches: str, *, now: bool, doubted: bool, dry_run: bool
) -> str:
    """What ``retry_urls`` queued, or would."""
    did = "would queue" if dry_run else "queued"
    where = f" of those numbered {batches}" if batches else ""
    sentence = f"{did} {queued['urls']:,} URLs of {queued['batches']:,} batches{where} again"
    if not queued["urls"]:
        return sentence
    if doubted:
        return f"{sentence}: dead links that one network has seen, for workers of another, at once"
    sentence += ": " + ", ".join(f"{name} {n:,}" for name, n in queued["outcomes"].items())
    if now:
        return f"{sentence}; at once"
    start, end = (f"{queued[at]:%Y-%m-%d %H:%M}" for at in ("first_at", "last_at"))
    span = start if start == end else f"{start} to {end}"
    return f"{sentence}; from {span} on, after their back-off (--now: at once)"

"""pairmill retry: new downloads of URLs whose failure may have passed."""

from typing import Any

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import outcomes
from pairmill.ops.commands.options import say_detached
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

LAST = 2**62
BACKFILL = "`pairmill model backfill NAME` fetches what a model that came later needs"


def retry(
    outcome: list[str] = typer.Option(
        None,
        "--outcome",
        help="Which, by name, several if need be; `list` shows them. By default all that a retry"
        " can help.",
        autocompletion=outcomes,
    ),
    batches: str = typer.Option("", "--batches", help="FIRST-LAST, or one number; all by default."),
    now: bool = typer.Option(
        False, "--now", help="May be claimed at once: without the back-off of 6 hours and more."
    ),
    doubted: bool = typer.Option(
        False,
        "--doubted",
        help="Instead of outcomes: dead links that one network has seen, for workers of another,"
        " at once.",
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what the same command without it would queue."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON object."),
) -> None:
    """Queue URLs again whose download failed, as later downloads of their batches.

    No sooner than mill.setting.url_retry_seconds after their batch (6 hours, doubling), and no
    URL more often than url_attempts times. --doubted: at once, but not by who found them dead nor
    from their network (`pairmill worker network`).
    """
    first, last = batch_range(batches)
    with admin() as connection:
        known = rows(connection, "select name, retry from report.outcome order by code")
        if outcome == ["list"]:
            _print_list(known)
            return
        _check(known, outcome or [])
        if doubted and (outcome or now):
            raise UserError("--doubted chooses by itself: leave --outcome and --now out")
        call, arguments = (
            ("mill.retry_doubted(%s, %s)", (first, last))
            if doubted
            else ("mill.retry_outcomes(%s, %s, %s, %s)", (outcome or None, first, last, now))
        )
        with connection.transaction(force_rollback=dry_run):
            (queued,) = rows(connection, f"select * from {call}", *arguments)
        say_detached(connection, first, last)
    if as_json:
        print_json(queued | {"dry_run": dry_run})
        return
    say(_sentence(queued, batches, now=now, doubted=doubted, dry_run=dry_run))
    if queued["busy"]:
        say(f"{queued['busy']:,} batches left out: a download of theirs is not done yet")
    if queued.get("spent"):
        say(f"{queued['spent']:,} URLs left out: they had mill.setting.url_attempts attempts")


def _print_list(known: list[dict[str, Any]]) -> None:
    for row in known:
        note = "a retry can help" if row["retry"] else ""
        if row["name"] == "success":
            note = f"no failure, never retried: {BACKFILL}"
        say(f"{row['name']:20} {note}".rstrip())


def _check(known: list[dict[str, Any]], outcomes: list[str]) -> None:
    if "success" in outcomes:
        raise UserError(f"success is no failure, and is never retried: {BACKFILL}")
    if unknown := sorted(set(outcomes) - {row["name"] for row in known}):
        raise UserError(
            f"no such outcome: {', '.join(unknown)}; `pairmill retry --outcome list` shows them"
        )


def _sentence(
    queued: dict[str, Any], batches: str, *, now: bool, doubted: bool, dry_run: bool
) -> str:
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


def batch_range(batches: str) -> tuple[int, int]:
    """The first and the last batch of FIRST-LAST, of one number, or, of an empty text, of all."""
    if not batches:
        return 0, LAST
    first, dash, last = batches.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UserError(f"--batches is FIRST-LAST or one number, not {batches!r}")
    if dash and int(first) > int(last):
        raise UserError(f"--batches {batches}: the first is above the last")
    if max(int(first), int(last or 0)) > LAST:
        raise UserError(f"--batches {batches}: no batch has such a number")
    return int(first), int(last or first)

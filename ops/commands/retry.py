"""pairmill retry: new downloads of URLs whose failure may have passed."""

from typing import Any

import typer

from pairmill.ops.admin.audit_log import acting, of_command
from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.url_retries import (
    BACKFILL,
    batch_range,
    known_outcomes,
    queued_sentence,
    retry_urls,
)
from pairmill.ops.commands.completion import outcomes
from pairmill.ops.commands.options import say_detached
from pairmill.ops.output import print_json
from pairmill.workers.safe_text import say


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
    chosen = outcome or []
    how = {"now": now, "doubted": doubted}
    with admin() as connection:
        if chosen == ["list"]:
            _print_list(known_outcomes(connection))
            return
        if dry_run:
            queued = retry_urls(connection, chosen, batches, **how, dry_run=True)
        else:
            asked = {"outcomes": chosen, "batches": batches, **how}
            with acting(connection, of_command(), "urls.retry", asked) as deed:
                queued = retry_urls(connection, chosen, batches, **how, dry_run=False)
                deed.affected, deed.answer = queued["urls"], {"batches": queued["batches"]}
        say_detached(connection, first, last)
    if as_json:
        print_json(queued | {"dry_run": dry_run})
        return
    say(queued_sentence(queued, batches, **how, dry_run=dry_run))
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

"""pairmill retry: new downloads of URLs whose failure may have passed."""

import typer

from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json
from pairmill.workers.safe_text import say

LAST = 2**62


def retry(
    outcome: list[str] = typer.Option(
        None, "--outcome", help="Which, by name; by default all that a retry can help."
    ),
    batches: str = typer.Option("", "--batches", help="FIRST-LAST, or one number; all by default."),
    now: bool = typer.Option(False, "--now", help="At once, without the back-off."),
    doubted: bool = typer.Option(
        False, "--doubted", help="Dead links that one network has seen, for workers of another."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be queued."),
    as_json: bool = typer.Option(False, "--json", help="A JSON object."),
) -> None:
    """Queue URLs again whose download failed, as later batches of their own.

    No sooner than mill.setting.url_retry_seconds after their batch (6 hours, doubling), and no
    URL more often than url_attempts times. --doubted: at once, but not by who found them dead nor
    from their network (`pairmill worker network`). `pairmill retry --outcome list` shows the
    outcomes.
    """
    with admin() as connection:
        known = rows(connection, "select name, retry from report.outcome order by code")
        if outcome == ["list"]:
            for row in known:
                say(f"{row['name']:20} {'a retry can help' if row['retry'] else ''}".rstrip())
            return
        names = {row["name"] for row in known} - {"success"}
        if unknown := sorted(set(outcome or ()) - names):
            raise UserError(
                f"no such outcome: {', '.join(unknown)}; `pairmill retry --outcome list` shows them"
            )
        if doubted and (outcome or now):
            raise UserError("--doubted chooses by itself: leave --outcome and --now out")
        call, arguments = (
            ("mill.retry_doubted(%s, %s)", _range(batches))
            if doubted
            else ("mill.retry_outcomes(%s, %s, %s, %s)", (outcome or None, *_range(batches), now))
        )
        with connection.transaction(force_rollback=dry_run):
            (queued,) = rows(connection, f"select * from {call}", *arguments)
    if as_json:
        print_json(queued)
        return
    would = "would be " if dry_run else ""
    say(f"{queued['urls']:,} URLs of {queued['batches']:,} batches {would}queued again")
    if queued["busy"]:
        say(f"{queued['busy']:,} batches left out: a download of theirs is not done yet")


def _range(batches: str) -> tuple[int, int]:
    if not batches:
        return 0, LAST
    first, dash, last = batches.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UserError(f"--batches is FIRST-LAST or one number, not {batches!r}")
    return int(first), int(last or first)

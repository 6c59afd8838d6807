"""pairmill removal request: what was asked to be removed, and what became of it."""

from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from typing import Any

import typer

from pairmill.ops.admin import removal_requests
from pairmill.ops.admin.audit_log import Deed, acting, of_command
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands import removal
from pairmill.ops.commands.completion import from_database, one_of
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, LIMIT, YES, counted
from pairmill.ops.commands.removal import detached, entries_of, say_copies, say_report
from pairmill.ops.commands.removal_list import DATES, utc
from pairmill.ops.output import print_json, print_rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Requests for removal, until they are decided.")
removal.app.add_typer(app, name="request")
STATES = ("open", "approved", "refused")
SHOWN = (
    "request_id", "state", "due_at", "late", "entries", "requester", "received_at", "origin",
)  # fmt: skip
NUMBER = typer.Argument(
    metavar="NUMBER",
    help="As `removal request list` gives it.",
    autocompletion=from_database(
        "select request_id, entries[1] from mill.removal_request where state = 'open'"
        " order by due_at"
    ),
)
WHY = typer.Option("", "--why", help="For the record, and for the answer.")


@app.command("add")
def add(
    what: list[str] = typer.Argument(help="As `removal add` takes it."),
    requester: str = typer.Option(..., "--from", help="Who asks, and how to answer: an address."),
    evidence: str = typer.Option("", "--evidence", help="Why they may ask: words, or a reference."),
    received: datetime = typer.Option(
        None, "--received", formats=DATES, help="When it came, UTC; now by default."
    ),
    days: int = typer.Option(
        removal_requests.DAYS, "--days", min=1, help="Until it is due, from when it came."
    ),
    page: bool = typer.Option(
        False, "--page", help="The URLs are of pages: the images of their pairs are meant."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Note a request. Nothing is removed before it is approved."""
    entries = entries_of(what)
    with admin() as connection:
        noted = removal_requests.add(
            connection, entries, requester=requester, evidence=evidence, received=utc(received),
            days=days, of_pages=page,
        )  # fmt: skip
    if as_json:
        print_json(noted)
        return
    say(f"request {noted['request_id']} noted, due on {noted['due_at']:%Y-%m-%d}")


@app.command("list")
def listing(
    state: str = typer.Option(
        None, "--state", help="open, approved or refused.", autocompletion=one_of(*STATES)
    ),
    limit: int = LIMIT,
    as_json: bool = AS_JSON,
) -> None:
    """The requests, those that are due first at the top."""
    if state is not None and state not in STATES:
        raise typer.BadParameter("--state is open, approved or refused")
    with admin() as connection:
        found = removal_requests.listed(connection, state, limit)
    print_rows(found, SHOWN, as_json=as_json, empty="no such requests")


@app.command("show")
def show(number: int = NUMBER, as_json: bool = AS_JSON) -> None:
    """A request with its evidence, and the decision."""
    with admin() as connection:
        found = removal_requests.get(connection, number)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if value not in (None, "", []):
            say(f"{name.replace('_', ' ')}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


@app.command("approve")
def approve(
    number: int = NUMBER,
    why: str = WHY,
    reason: str = typer.Option(
        None,
        "--reason",
        help="For all who may see reports; the request's number by default.",
    ),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Remove what a request names, as `removal add` would."""
    asked = {"request": number, "why": why, "reason": reason}
    with (
        admin() as connection,
        nullcontext(Deed())
        if dry_run
        else acting(connection, of_command(), "request.approve", asked) as deed,
        removal.searching() as (report_progress, pause),
    ):
        report = removal_requests.approve(
            connection, number, why, reason, dry_run=dry_run, progress=report_progress,
            detached=detached(), confirm=removal.confirmation(connection, yes, pause),
        )  # fmt: skip
        deed.affected, deed.answer = report.matching_pairs, asdict(report)
    if as_json:
        print_json(asdict(report) | {"request_id": number, "dry_run": dry_run})
        return
    say_report(report, dry_run)
    if not dry_run:
        say(f"request {number} approved")
        if report.matching_pairs:
            say_copies()


@app.command("refuse")
def refuse(
    number: int = NUMBER,
    why: str = typer.Option(..., "--why", help="For the record, and for the answer."),
    as_json: bool = AS_JSON,
) -> None:
    """Refuse a request; nothing of it is removed."""
    asked = {"request": number, "why": why}
    with admin() as connection, acting(connection, of_command(), "request.refuse", asked):
        found = removal_requests.refuse(connection, number, why)
    if as_json:
        print_json(found)
        return
    say(f"request {number} refused; {counted(len(found['entries']), 'entry', 'entries')} stay")

"""Workers: disable, enable, prove, quarantine, and the network that they connect from."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from pairmill.ops.admin import page_sessions, worker_changes
from pairmill.ops.admin.removal_search import Progress
from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows
from pairmill.ops.web.console.actions import (
    Arguments,
    Done,
    PageAction,
    Shown,
    quoted,
    row_number,
    wanted,
)

REASON = ("reason", "Reason", "text", "Kept, and told to whoever logs in with it.")
Change = Callable[[psycopg.Connection, str, Arguments], None]


def _worker(connection: psycopg.Connection, given: Arguments) -> dict[str, Any]:
    """Raises UserError where there is none of that name."""
    name = wanted(given, "name", "the worker's name")
    found = rows(
        connection,
        "select w.name, w.kind, w.disabled_at, w.proven_at, w.streak, w.network,"
        " (select count(*) from mill.lease l join mill.instance i using (instance_id)"
        "   where i.worker_id = w.worker_id and l.ended_at is null) as leases"
        " from mill.worker w where w.name = %s",
        name,
    )
    if not found:
        raise worker_changes.no_worker(name)
    return found[0]


# what each would do, said of the worker as it is
SAID: dict[str, Callable[[dict[str, Any], Arguments], str]] = {
    "disable": lambda w, g: (
        f"{w['name']} would be disabled: its sessions end, it is told why, its"
        f" {w['leases']:,} leases run out. What was accepted from it stays."
    ),
    "enable": lambda w, g: (
        f"{w['name']} would work again, as an unproven worker. It keeps its DSN; what was withdrawn"
        " stays withdrawn."
    ),
    "prove": lambda w, g: (
        f"{w['name']} would be proven: nobody checks its downloads any more, and others rely on the"
        " robots.txt that it reads."
    ),
    "unprove": lambda w, g: f"{w['name']} would be checked again, as any other worker.",
    "network": lambda w, g: (
        f"{w['name']} would be noted as connecting from"
        f" {g.get('network') or 'a network that is not known'}; it is"
        f" {w['network'] or 'not known'} now."
    ),
}
STILL: dict[str, Callable[[dict[str, Any]], bool]] = {
    "disable": lambda w: w["disabled_at"] is not None,
    "enable": lambda w: w["disabled_at"] is None,
    "prove": lambda w: w["streak"] is None,
    "unprove": lambda w: w["streak"] is not None,
    "network": lambda w: False,
}
CHANGES: dict[str, Change] = {
    "disable": lambda c, n, g: worker_changes.disable(c, n, g.get("reason", "")),
    "enable": lambda c, n, g: worker_changes.enable(c, n),
    "prove": lambda c, n, g: worker_changes.prove(c, n),
    "unprove": lambda c, n, g: worker_changes.prove(c, n, proven=False),
    "network": lambda c, n, g: worker_changes.set_network(c, n, g.get("network", "")),
}
DONE = {
    "disable": "{} is disabled.", "enable": "{} may work again.", "prove": "{} is proven.",
    "unprove": "{} is not proven.", "network": "The network of {} is noted.",
}  # fmt: skip


def _preview(
    verb: str, connection: psycopg.Connection, given: Arguments, progress: Progress
) -> Shown:
    worker = _worker(connection, given)
    if STILL[verb](worker):
        return Shown([f"{worker['name']} is so already: there is nothing to do."], ready=False)
    numbers = {name: worker[name] for name in ("name", "disabled_at", "streak", "network")}
    return Shown([SAID[verb](worker, given)], numbers)


def _do(
    verb: str, connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    name = wanted(given, "name", "the worker's name")
    CHANGES[verb](connection, name, given)
    return Done([DONE[verb].format(name)], 1)


def _action(
    verb: str, title: str, command: str, *more: str, severe: bool = False, **how: Any
) -> PageAction:
    return PageAction(
        f"worker.{verb}", title, ("name", *more), partial(_preview, verb), partial(_do, verb),
        lambda given: command.format(
            *(quoted(given.get(name, "")) for name in ("name", *more))
        ),
        severe=severe, back="/workers", **how,
    )  # fmt: skip


# ---- quarantine ---------------------------------------------------------------------------------


def _since(given: Arguments) -> datetime | None:
    """In UTC, as what is confirmed says; so is a moment without a zone. Raises UserError."""
    if "since" not in given:
        return None
    try:
        moment = datetime.fromisoformat(given["since"])
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UserError(f"{given['since'][:40]!r} is no date like 2026-11-27 or 2026-11-27T12:00")  # noqa: B904


def _preview_quarantine(
    connection: psycopg.Connection, given: Arguments, progress: Progress
) -> Shown:
    name = wanted(given, "name", "the worker's name")
    since = _since(given)
    found = worker_changes.quarantine(connection, name, since, _reason(given), dry_run=True)
    when = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
    return Shown(
        [
            f"All that came from {name}{when} would be taken back, and queued again.",
            worker_changes.quarantined(name, found, "would be ") + ".",
            "The worker is disabled first. Where more came in since these were counted, the page"
            " asks once more.",
        ],
        # of a worker that is at work its leases come and go
        {key: found[key] for key in ("rows", "withdrawn", "rejected")},
    )


def _do_quarantine(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    name = wanted(given, "name", "the worker's name")
    found = worker_changes.quarantine(
        connection, name, _since(given), _reason(given), dry_run=False
    )
    return Done([worker_changes.quarantined(name, found, "") + "."], found["rows"], found)


def _reason(given: Arguments) -> str:
    return given.get("reason", worker_changes.QUARANTINED)


def _disable_first(connection: psycopg.Connection, given: Arguments) -> None:
    name = wanted(given, "name", "the worker's name")
    worker_changes.disable(connection, name, _reason(given))


def _quarantine_command(given: Arguments) -> str:
    since = f" --since {quoted(given['since'])}" if "since" in given else ""
    return f"pairmill worker quarantine {quoted(given.get('name', ''))}{since}"


# ---- sessions of this page ----------------------------------------------------------------------


def _session(connection: psycopg.Connection, given: Arguments) -> dict[str, Any]:
    number = row_number(given, "session", "the session's number")
    for row in page_sessions.sessions(connection):
        if row["session_id"] == number and row["is_open"]:
            return row
    raise UserError(f"there is no open session {number}: see `pairmill web sessions`")


def _preview_session(connection: psycopg.Connection, given: Arguments, progress: Progress) -> Shown:
    row = _session(connection, given)
    said = f"Session {row['session_id']} of {row['name']} ({row['role']}) would end at once."
    return Shown([said], {"session": row["session_id"]})


def _do_session(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    number = row_number(given, "session", "the session's number")
    return Done([f"Session {number} is over."], page_sessions.end_sessions(connection, number))


ACTIONS = (
    _action("disable", "Stop a worker", "pairmill worker disable {} --reason {}", "reason",
            asks=(REASON,), severe=True),
    _action("enable", "Let a worker work again", "pairmill worker enable {}"),
    _action("prove", "Vouch for a worker", "pairmill worker prove {}"),
    _action("unprove", "Check a worker again", "pairmill worker prove {} --not"),
    _action("network", "Note a worker's network", "pairmill worker network {} {}", "network"),
    PageAction(
        "worker.quarantine", "Quarantine a worker", ("name", "since", "reason"),
        _preview_quarantine, _do_quarantine, _quarantine_command, asks=(REASON,),
        settles=_disable_first, settled="the worker is disabled, and nothing else was done",
        severe=True, back="/workers",
    ),
    PageAction(
        "session.end", "End a session", ("session",), _preview_session, _do_session,
        lambda given: f"pairmill web end-session {given.get('session', '')}", severe=True,
        back="/sessions",
    ),
)  # fmt: skip

"""Pages of the queue: overview, failures, tasks."""

from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pairmill.ops.admin.task_changes import CHANGES, STATES
from pairmill.ops.web.console.layout import (
    PAGE,
    Section,
    given,
    older,
    page,
    path_number,
    section,
    whole,
)
from pairmill.ops.web.console.readings import first, readings_of
from pairmill.ops.web.console.visitors import Visitor

ATTENTION = ("requests", "late_requests", "disputes", "stopped_workers", "unfinished_searches")
STEWARD_LATE = 60.0  # seconds: a steward is seen every few seconds, noted each half minute
DEPTH = (
    ("kind", "Kind", "text"), ("ready", "Ready", "number"),
    ("oldest_ready_seconds", "Oldest ready", "seconds"), ("leased", "Leased", "number"),
    ("submitted", "To accept", "number"), ("late_leases", "Late leases", "number"),
    ("discarded", "Given up", "number"), ("parked", "Parked", "number"), ("done", "Done", "number"),
)  # fmt: skip
RATES = (
    ("kind", "Kind", "text"), ("per_minute", "Rows a minute, now", "number"),
    ("rows_hour", "Rows in an hour", "number"), ("rows_day", "Rows in a day", "number"),
)  # fmt: skip
DURATIONS = (
    ("kind", "Kind", "text"), ("completed", "Completed", "number"), ("p50", "p50", "seconds"),
    ("p95", "p95", "seconds"), ("p99", "p99", "seconds"), ("failed", "Failed", "number"),
    ("expired", "Lost", "number"), ("released", "Given back", "number"),
)  # fmt: skip
SESSIONS = (
    ("worker", "Worker", "worker"), ("state", "State", "text"),
    ("seconds", "Transaction open for", "seconds"), ("is_waiting", "Waits for a lock", "yes"),
)  # fmt: skip
ENDED = (
    ("worker", "Worker", "worker"), ("state", "State", "text"), ("sessions", "Sessions", "number"),
    ("longest", "Open for at most", "seconds"), ("at", "The last", "ago"),
)  # fmt: skip
WAITING = (
    ("kind", "Kind", "text"), ("purpose", "Purpose", "text"), ("model", "Model", "text"),
    ("waits_for", "Waits for", "text"), ("tasks", "Tasks", "number"),
    ("first_ready_at", "From", "ago"), ("claimant_seen_at", "Worker seen", "ago"),
    ("first_task_id", "One of them", "task"),
)  # fmt: skip
BATCHES = (
    ("batch_id", "Batch", "number"), ("link_kind", "Links", "text"), ("pairs", "Pairs", "number"),
    ("opened_at", "Opened", "ago"), ("dealt_at", "Last pairs", "ago"),
    ("closes_at", "Closes", "ago"), ("awaited_files", "Files awaited", "number"),
)  # fmt: skip
LOST = (
    ("worker", "Worker", "worker"), ("kind", "Kind", "text"), ("failed", "Failed", "number"),
    ("expired", "Lost", "number"), ("released", "Given back", "number"),
    ("last_at", "Last", "ago"),
)  # fmt: skip
LEASES = (
    ("lease_id", "Lease", "number"), ("worker", "Worker", "worker"), ("version", "Version", "text"),
    ("claimed_at", "Claimed", "ago"), ("ended_at", "Ended", "ago"), ("ended_as", "As", "text"),
    ("seconds", "Lasted", "seconds"), ("expires_at", "Late from", "ago"),
)  # fmt: skip
SUBMISSIONS = (
    ("submission_id", "Submission", "number"), ("worker", "Worker", "worker"),
    ("part", "Part", "number"), ("state", "State", "text"), ("row_count", "Rows", "number"),
    ("reason", "Reason", "text"), ("received_at", "Received", "ago"),
    ("decided_at", "Decided", "ago"),
)  # fmt: skip


def overview(request: Request, visitor: Visitor, form: Any) -> Response:
    """What is going on, and what waits for an admin."""
    r = readings_of(request)
    rates, durations, ring = r.kept("throughput"), r.kept("durations"), r.kept("ring")
    per_minute = [row | {"per_minute": row["rows_5_minutes"] / 5} for row in rates.rows]
    partial = any(not row["is_all"] for row in rates.rows)
    cut = "Of the newest 20,000 submissions, which go back less than a day." if partial else ""
    quantiles = [
        row | dict(zip(("p50", "p95", "p99"), row["seconds"] or (None,) * 3, strict=True))
        for row in durations.rows
    ]
    known, counts = r.kept("stewards"), r.kept("attention")  # both have rows, unless too slow
    stewards = [row for row in known.rows if row["name"] is not None]
    seen = min((row["seconds"] for row in stewards if row["seconds"] is not None), default=None)
    full = bool(ring.rows) and all(slot["state"] == "full" for slot in ring.rows)
    return page(
        request, visitor, "overview", ring=ring.rows, ring_full=full,
        depth=section("Queue", DEPTH, r.kept("queue"), "No kind of work is known."),
        rates=Section("Throughput", RATES, per_minute, "Nothing was accepted yet.",
                      rates.trouble, cut, rates.age),
        durations=Section("Durations of leases", DURATIONS, quantiles, "No lease ended yet.",
                          durations.trouble, "Of the newest 20,000 leases.", durations.age),
        sessions=section("Open transactions", SESSIONS, r.kept("sessions_open"),
                         "None is open for longer than 15 s."),
        ended=section("Ended by the watchdog", ENDED, r.kept("sessions_ended"),
                      "None within 30 days.",
                      "Workers' sessions without a query for 15 s in a transaction, or ten minutes"
                      " in one, and those of disabled logins."),
        stewards=stewards, steward_seconds=seen,
        steward_late=bool(known.rows) and (seen is None or seen > STEWARD_LATE),
        watchdog_can=bool(first(known.rows).get("watchdog_can", True)),
        attention=first(counts.rows) or dict.fromkeys(ATTENTION), unsure=[known, counts],
        now=datetime.now(UTC),
    )  # fmt: skip


def waiting(request: Request, visitor: Visitor, form: Any) -> Response:
    """What stands still, and why."""
    r = readings_of(request)
    return page(
        request, visitor, "sections", title="What waits", lead="Ready tasks by what they wait for.",
        sections=[
            section("Ready tasks", WAITING, r.kept("waiting"), "No task is ready."),
            section("Open batches", BATCHES, r.kept("batches_open"), "No batch is open.",
                    "Their pairs are not downloaded yet, since more may come."),
        ],
    )  # fmt: skip


def failures(request: Request, visitor: Visitor, form: Any) -> Response:
    """What failed, by reason."""
    r = readings_of(request)
    return page(
        request, visitor, "failures", stopped=r.kept("stopped"), failing=r.kept("failing"),
        outcomes=r.kept("outcomes"),
        lost=section("Leases of the last day that did not end well", LOST, r.kept("lost_leases"),
                     "None."),
    )  # fmt: skip


def tasks(request: Request, visitor: Visitor, form: Any) -> Response:
    """A list of tasks, to choose from."""
    chosen = given(request, "state", "kind", "reason", "alike")
    batch, before = whole(request, "batch"), whole(request, "before")
    if chosen["state"] not in (None, *STATES):
        raise HTTPException(400, "there is no such state of a task")
    found = readings_of(request).asked("tasks", **chosen, batch=batch, before=before, limit=PAGE)
    return page(
        request, visitor, "tasks", found=found, chosen=chosen | {"batch": batch}, states=STATES,
        changes=CHANGES.values(), next=older(request, found.rows, "task_id"),
        is_filtered=any(chosen.values()),
    )  # fmt: skip


def task(request: Request, visitor: Visitor, form: Any) -> Response:
    """A task with its history."""
    number = path_number(request)
    r = readings_of(request)
    row = first(r.rows("task", task=number))
    if not row:
        raise HTTPException(404, f"there is no task {number}")
    return page(
        request, visitor, "task", task=row,
        changes=[c for c in CHANGES.values() if row["state"] in c.of],
        leases=section("Leases", LEASES, r.asked("task_leases", task=number),
                       "It was never claimed."),
        submissions=section("Submissions", SUBMISSIONS, r.asked("task_submissions", task=number),
                            "Nothing was submitted for it."),
    )  # fmt: skip

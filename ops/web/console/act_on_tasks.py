"""Tasks and URLs: retry, unpark, park, discard, one or up to a thousand at a time."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import psycopg

from pairmill.ops.admin.removal_search import Progress
from pairmill.ops.admin.task_changes import CHANGES, STATES, TaskChange, TaskFilter
from pairmill.ops.admin.url_retries import queued_sentence, retry_urls
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows
from pairmill.ops.web.console.actions import Arguments, Done, PageAction, Shown, quoted

AT_ONCE = 1_000
LISTED = 100
COUNTED = 100_000
COLUMNS = (
    ("task_id", "Task", "task"), ("kind", "Kind", "text"), ("was", "State", "text"),
    ("queued", "Queued as", "text"), ("problem", "Why not", "text"),
)  # fmt: skip
TAKES = ("id", "state", "kind", "reason", "alike", "why")
WHY = ("why", "Why", "text", "Shown with the task, and kept in the log.")


def chosen(
    connection: psycopg.Connection, change: TaskChange, given: Arguments
) -> tuple[list[int], int]:
    """The numbers of the tasks that are meant, a thousand at most, and how many there are. Raises
    UserError."""
    if "id" in given:
        ids = _numbers(given["id"])
        return ids[:AT_ONCE], len(ids)
    if not {"state", "kind", "reason", "alike"} & given.keys():
        raise UserError("choose tasks first: by their boxes, or by state, kind or reason")
    if given.get("state", "ready") not in STATES:
        raise UserError(f"{given['state'][:40]!r} is no state of a task")
    of = [given["state"]] if "state" in given else list(change.of)
    found = rows(
        connection, query_text("web", "admin/chosen_tasks"), states=of, kind=given.get("kind"),
        reason=given.get("reason"), alike=given.get("alike"), most=COUNTED, listed=AT_ONCE,
    )[0]  # fmt: skip
    return found["ids"], found["tasks"]


def _numbers(text: str) -> list[int]:
    found: dict[int, None] = {}
    for one in re.split(r"[\s,]+", text):
        if not re.fullmatch(r"[0-9]{1,18}", one):
            raise UserError(f"{one[:40]!r} is no number of a task")
        found[int(one)] = None
    return list(found)


def _preview(
    change: TaskChange, connection: psycopg.Connection, given: Arguments, progress: Progress
) -> Shown:
    ids, count = chosen(connection, change, given)
    why = given.get("why", "")
    results = change.run(connection, ids, TaskFilter(), single=ids, why=why, dry_run=True)
    well = [r for r in results if not r["problem"]]
    lines = [f"{_counted(well)} would be {change.done}{_kinds(well)}."]
    if count > AT_ONCE:
        many = f"more than {COUNTED:,}" if count > COUNTED else f"{count:,}"
        lines.append(
            f"{many} tasks are chosen: {AT_ONCE:,} are done at a time, those with the lowest"
            " numbers first. Come back for the others."
        )
    if len(well) < len(results):
        lines.append(f"{len(results) - len(well):,} cannot be, and stay as they are.")
    shown = sorted(results, key=lambda r: not r["problem"])[:LISTED]
    if len(results) > len(shown):
        lines.append(f"The table has {len(shown):,} of them.")
    numbers = {"tasks": [r["task_id"] for r in well]}
    return Shown(lines, numbers, COLUMNS, shown, ready=bool(well))


def _do(
    change: TaskChange,
    connection: psycopg.Connection,
    given: Arguments,
    shown: str,
    progress: Progress,
) -> Done:
    ids, _ = chosen(connection, change, given)
    results = change.run(connection, ids, TaskFilter(), single=ids, why=given.get("why", ""))
    well = [r for r in results if not r["problem"]]
    failed = [r for r in results if r["problem"]]
    lines = [f"{_counted(well)} {change.done}{_kinds(well)}."]
    answer = {"tasks": [r["task_id"] for r in well]}
    return Done(lines, len(well), answer, COLUMNS, [*failed, *well][:LISTED])


def _counted(results: Sequence[dict[str, Any]]) -> str:
    return "1 task" if len(results) == 1 else f"{len(results):,} tasks"


def _kinds(results: Sequence[dict[str, Any]]) -> str:
    kinds = Counter(r["kind"] for r in results)
    each = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    return f": {each}" if each else ""


def _command(name: str, given: Arguments) -> str:
    if "alike" in given:  # the command has no such filter
        return ""
    words = [f"pairmill task {name}"]
    if "id" in given:
        words.append(given["id"])
    words += [f"--{n} {quoted(given[n])}" for n in ("state", "kind", "reason", "why") if n in given]
    return " ".join(words)


def _action(name: str, title: str, *, severe: bool = False) -> PageAction:
    change = CHANGES[name]
    return PageAction(
        f"task.{name}", title, TAKES, partial(_preview, change), partial(_do, change),
        partial(_command, name), asks=(WHY,) if change.why else (), severe=severe,
        back="/failures",
    )  # fmt: skip


# ---- URLs ---------------------------------------------------------------------------------------


def _url_arguments(given: Arguments) -> dict[str, Any]:
    return {
        "outcomes": given.get("outcome", "").split(), "batches": given.get("batches", ""),
        "now": "now" in given, "doubted": "doubted" in given,
    }  # fmt: skip


def _preview_urls(connection: psycopg.Connection, given: Arguments, progress: Progress) -> Shown:
    asked = _url_arguments(given)
    queued = retry_urls(connection, **asked, dry_run=True)
    lines = [_sentence(queued, asked, dry_run=True), *_left_out(queued)]
    numbers = {"urls": queued["urls"], "batches": queued["batches"]}
    return Shown(lines, numbers, ready=bool(queued["urls"]))


def _do_urls(
    connection: psycopg.Connection, given: Arguments, shown: str, progress: Progress
) -> Done:
    asked = _url_arguments(given)
    queued = retry_urls(connection, **asked, dry_run=False)
    answer = {"batches": queued["batches"]}
    return Done([_sentence(queued, asked, dry_run=False)], queued["urls"], answer)


def _sentence(queued: dict[str, Any], asked: dict[str, Any], *, dry_run: bool) -> str:
    how = {name: asked[name] for name in ("now", "doubted")}
    said = queued_sentence(queued, asked["batches"], **how, dry_run=dry_run)
    return said[:1].upper() + said[1:] + "."


def _left_out(queued: dict[str, Any]) -> list[str]:
    said = []
    if queued["busy"]:
        said.append(f"{queued['busy']:,} batches are left out: a download of theirs is not done.")
    if queued.get("spent"):
        said.append(f"{queued['spent']:,} URLs are left out: they had all their attempts.")
    return said


def _url_command(given: Arguments) -> str:
    words = ["pairmill retry"]
    words += [f"--outcome {quoted(one)}" for one in given.get("outcome", "").split()]
    words += [f"--batches {quoted(given['batches'])}"] if "batches" in given else []
    return " ".join(words + [f"--{n}" for n in ("now", "doubted") if n in given])


ACTIONS = (
    _action("retry", "Queue tasks again"),
    _action("unpark", "Bring parked tasks back"),
    _action("park", "Park tasks"),
    _action("discard", "Give tasks up", severe=True),
    PageAction(
        "urls.retry", "Queue failed downloads again", ("outcome", "batches", "now", "doubted"),
        _preview_urls, _do_urls, _url_command, back="/failures",
    ),
)  # fmt: skip

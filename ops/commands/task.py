"""pairmill task: the queue."""

from collections import Counter
from typing import Any

import typer

from pairmill.ops.admin.audit_log import Deed, acting, of_command
from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.task_changes import (
    DISCARD,
    ONE_OF,
    PARK,
    RETRY,
    UNPARK,
    TaskChange,
    TaskFilter,
)
from pairmill.ops.commands.completion import kinds, task_states, tasks
from pairmill.ops.commands.numbers import numbers
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, counted
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Tasks of the queue.")
SHOWN = ("task_id", "kind", "state", "wat_id", "batch_id", "attempts", "worker", "reason")
LINES = 20  # more tasks than this are counted, not listed

TASKS = typer.Argument(
    None, help="Numbers (`task list`), and ranges like 3-9.", autocompletion=tasks
)
EVERY = typer.Option(False, "--all", help="Every task that it can be done to.")
STATE = typer.Option(
    None, "--state", help=f"Only those that are {ONE_OF}.", autocompletion=task_states
)
KIND = typer.Option(
    None, "--kind", help="Only those of this kind: extract, download, score …", autocompletion=kinds
)
REASON = typer.Option(None, "--reason", help="Only those whose last reason has these words.")


@app.command("list")
def task_list(
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    limit: int = typer.Option(
        100, "--limit", min=1, help="At most so many, the newest change first."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Tasks, with who holds them and why they failed."""
    with admin() as connection:
        found = TaskFilter(state, kind, reason).rows(connection, None, limit)
    print_rows(found, SHOWN, as_json=as_json, empty="no such tasks")


@app.command("retry")
def task_retry(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Queue discarded tasks again, and parked ones that are named. One whose thumbnails are gone is
    downloaded again. --all means the discarded ones."""
    if not tasks and not state and (every or kind or reason):
        state = "discarded"
    _all(RETRY, tasks, every, TaskFilter(state, kind, reason), dry_run, as_json)


@app.command("unpark")
def task_unpark(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    kind: str = KIND,
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Bring parked tasks back into the queue."""
    _all(UNPARK, tasks, every, TaskFilter(None, kind, reason), dry_run, as_json)


@app.command("park")
def task_park(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    why: str = typer.Option(PARK.why, "--why", help="Shown by `task list`."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Take tasks out of the queue for the moment; `task unpark` brings them back.

    The holder's next call is refused. Nothing waits for a parked task: batches are closed and
    workers drained without it. The thumbnails that a parked score task needs are kept for a day
    (mill.setting.discarded_hold_seconds); later they are downloaded again.
    """
    _all(PARK, tasks, every, TaskFilter(state, kind, reason), dry_run, as_json, why)


@app.command("discard")
def task_discard(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    why: str = typer.Option(DISCARD.why, "--why", help="Shown by `task list`."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Give tasks up; the holder's next call is refused. `task retry` queues them again."""
    _all(DISCARD, tasks, every, TaskFilter(state, kind, reason), dry_run, as_json, why)


def _all(
    change: TaskChange,
    given: list[str] | None,
    every: bool,
    chosen: TaskFilter,
    dry_run: bool,
    as_json: bool,
    why: str = "",
) -> None:
    """Make a change to all tasks that are meant, and say so; then end with an error that names
    those to which it could not be done. A range means those in it to which it can."""
    if bool(given) == every and (given or chosen == TaskFilter()):
        raise UserError(
            "name the tasks (`pairmill task list`), or choose them by --state, --kind,"
            " --reason or --all"
        )
    if not given and chosen.state not in (None, *change.of):
        raise UserError(f"only {' and '.join(change.of)} tasks can be {change.done}")
    single = {int(one) for one in given or () if one.isdecimal() and len(one) < 19}
    ids = numbers(given, "tasks") if given else None
    with admin() as connection:
        if dry_run:
            results = change.run(connection, ids, chosen, single=single, why=why, dry_run=True)
        else:
            asked = {"tasks": given or [], "all": every, **vars(chosen), "why": why}
            with acting(connection, of_command(), f"task.{change.name}", asked) as deed:
                results = change.run(connection, ids, chosen, single=single, why=why)
                _note(deed, results)
    _say(change, results, dry_run, as_json)
    wrong = [r for r in results if r["problem"]]
    if wrong or (given and not results):
        which = "; ".join(f"task {r['task_id']}: {r['problem']}" for r in wrong[:LINES])
        more = f"; and {len(wrong) - LINES:,} more" if len(wrong) > LINES else ""
        raise UserError(which + more or f"no task of {', '.join(given or ())} can be {change.done}")


def _note(deed: Deed, results: list[dict[str, Any]]) -> None:
    well = [r["task_id"] for r in results if not r["problem"]]
    deed.affected = len(well)
    deed.answer = {"tasks": well}


def _say(change: TaskChange, results: list[dict[str, Any]], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    would = "would be " if dry_run else ""
    well = [r for r in results if not r["problem"]]
    if len(well) <= LINES:
        for r in well:
            again = f" ({r['queued']})" if "queued" in r else ""
            say(f"task {r['task_id']} ({r['kind']}, {r['was']}): {would}{change.done}{again}")
    else:
        kinds = Counter(r["kind"] for r in well)
        each = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        say(f"{counted(len(well), 'task')} {would}{change.done}: {each}")
    if not results:
        say(f"no task is to be {change.done}")

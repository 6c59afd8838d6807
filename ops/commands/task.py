"""pairmill task: the queue."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import TASK_STATES as STATES
from pairmill.ops.commands.completion import kinds, task_states, tasks
from pairmill.ops.commands.numbers import numbers
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, counted
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Tasks of the queue.")
SHOWN = ("task_id", "kind", "state", "wat_id", "batch_id", "attempts", "worker", "reason")
ONE_OF = f"{', '.join(STATES[:-1])} or {STATES[-1]}"
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
Call = Callable[[psycopg.Connection, int], Any]


@dataclass(frozen=True)
class Filter:
    """Which tasks are meant: all that agree with every field that is not None."""

    state: str | None
    kind: str | None
    reason: str | None

    def rows(
        self, connection: psycopg.Connection, ids: Sequence[int] | None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """The tasks, the newest change first. Raises UserError for a state that there is not."""
        if self.state is not None and self.state not in STATES:
            raise UserError(f"--state is {ONE_OF}, not {self.state!r}")
        return rows(
            connection,
            "select * from report.task where (%s::bigint[] is null or task_id = any(%s))"
            " and state = coalesce(%s, state) and kind = coalesce(%s, kind)"
            " and (%s::text is null or position(lower(%s) in lower(reason)) > 0)"
            " order by changed_at desc, task_id limit %s",
            ids, ids, self.state, self.kind, self.reason, self.reason, limit,
        )  # fmt: skip


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
        found = Filter(state, kind, reason).rows(connection, None, limit)
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
    _Do("queued again", ("discarded", "parked"), _retried).all(
        tasks, every, Filter(state, kind, reason), dry_run, as_json
    )


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
    _Do("queued again", ("parked",), _retried).all(
        tasks, every, Filter(None, kind, reason), dry_run, as_json
    )


@app.command("park")
def task_park(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    why: str = typer.Option("parked by an admin", "--why", help="Shown by `task list`."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Take tasks out of the queue for the moment; `task unpark` brings them back.

    The holder's next call is refused. Nothing waits for a parked task: batches are closed and
    workers drained without it. The thumbnails that a parked score task needs are kept for a day
    (mill.setting.discarded_hold_seconds); later they are downloaded again.
    """

    def parked(connection: psycopg.Connection, task: int) -> Any:
        return _value(connection, "select mill.park_task(%s, %s)", task, why)

    _Do("parked", ("ready", "leased"), parked).all(
        tasks, every, Filter(state, kind, reason), dry_run, as_json
    )


@app.command("discard")
def task_discard(
    tasks: list[str] = TASKS,
    every: bool = EVERY,
    state: str = STATE,
    kind: str = KIND,
    reason: str = REASON,
    why: str = typer.Option("discarded by an admin", "--why", help="Shown by `task list`."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Give tasks up; the holder's next call is refused. `task retry` queues them again."""

    def discarded(connection: psycopg.Connection, task: int) -> Any:
        return _value(connection, "select mill.discard_task(%s, %s)", task, why)

    _Do("discarded", ("ready", "leased", "parked"), discarded).all(
        tasks, every, Filter(state, kind, reason), dry_run, as_json
    )


def _value(connection: psycopg.Connection, query: str, *arguments: Any) -> Any:
    (row,) = connection.execute(query, arguments).fetchall()
    return row[0]


def _retried(connection: psycopg.Connection, task: int) -> Any:
    return _value(connection, "select mill.retry_task(%s)", task)


@dataclass(frozen=True)
class _Do:
    """Something that is done to tasks. done: the word for it; of: the states in which it can be;
    call: does it to one, and gives nothing where it cannot."""

    done: str
    of: tuple[str, ...]
    call: Call

    def all(
        self,
        given: list[str] | None,
        every: bool,
        chosen: Filter,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        """Do it to all that are meant, and say so; then end with an error that names those to which
        it could not be done. A range means those in it to which it can."""
        if bool(given) == every and (given or chosen == Filter(None, None, None)):
            raise UserError(
                "name the tasks (`pairmill task list`), or choose them by --state, --kind,"
                " --reason or --all"
            )
        if not given and chosen.state not in (None, *self.of):
            raise UserError(f"only {' and '.join(self.of)} tasks can be {self.done}")
        single = {int(one) for one in given or () if one.isdecimal() and len(one) < 19}
        ids = numbers(given, "tasks") if given else None
        with admin() as connection, ExitStack() as rehearsal:
            if dry_run:
                rehearsal.enter_context(connection.transaction(force_rollback=True))
            found = {row["task_id"]: row for row in chosen.rows(connection, ids)}
            meant = {n: row for n, row in found.items() if n in single or row["state"] in self.of}
            results = [self._one(connection, meant[n]) for n in sorted(meant)]
        none = "there is none such"
        if chosen != Filter(None, None, None):
            none += " with that --state, --kind or --reason"
        results += [{"task_id": n, "problem": none} for n in sorted(single - found.keys())]
        self._say(results, dry_run, as_json)
        wrong = [r for r in results if r["problem"]]
        if wrong or (given and not results):
            which = "; ".join(f"task {r['task_id']}: {r['problem']}" for r in wrong[:LINES])
            more = f"; and {len(wrong) - LINES:,} more" if len(wrong) > LINES else ""
            raise UserError(
                which + more or f"no task of {', '.join(given or ())} can be {self.done}"
            )

    def _one(self, connection: psycopg.Connection, row: dict[str, Any]) -> dict[str, Any]:
        result = {"task_id": row["task_id"], "kind": row["kind"], "was": row["state"]}
        problem = ""
        answer = None
        if row["state"] in self.of:
            try:
                with connection.transaction():
                    answer = self.call(connection, row["task_id"])
            except psycopg.DatabaseError as refused:
                if refused.sqlstate != "PM003":
                    raise
                problem = str(refused.diag.message_primary)
        if not answer and not problem:
            check = "a check of another's work" if row["purpose"] == "check" else ""
            problem = f"it is {check or row['state']}, and cannot be {self.done}"
        if isinstance(answer, str):
            result["queued"] = answer
        return result | {"problem": problem}

    def _say(self, results: list[dict[str, Any]], dry_run: bool, as_json: bool) -> None:
        if as_json:
            print_json(results)
            return
        would = "would be " if dry_run else ""
        well = [r for r in results if not r["problem"]]
        if len(well) <= LINES:
            for r in well:
                again = f" ({r['queued']})" if "queued" in r else ""
                say(f"task {r['task_id']} ({r['kind']}, {r['was']}): {would}{self.done}{again}")
        else:
            kinds = Counter(r["kind"] for r in well)
            each = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
            say(f"{counted(len(well), 'task')} {would}{self.done}: {each}")
        if not results:
            say(f"no task is to be {self.done}")

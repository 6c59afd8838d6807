"""What an admin does to tasks of the queue: retry, unpark, park, discard; one, or many at once."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

STATES = ("ready", "leased", "submitted", "done", "discarded", "parked")
ONE_OF = f"{', '.join(STATES[:-1])} or {STATES[-1]}"


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks are meant: all that agree with every field that is not None."""

    state: str | None = None
    kind: str | None = None
    reason: str | None = None

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


@dataclass(frozen=True)
class TaskChange:
    """Something that is done to tasks. done: the word for it; of: the states in which it can be;
    call: the function of the database, which gives nothing where it cannot; why: the reason by
    default, of a change that has one."""

    name: str
    done: str
    of: tuple[str, ...]
    call: str
    why: str = ""

    def run(
        self,
        connection: psycopg.Connection,
        ids: Sequence[int] | None,
        chosen: TaskFilter,
        *,
        single: Iterable[int] = (),
        why: str = "",
        dry_run: bool = False,
    ) -> list[dict[str, Any]]:
        """Do it to all tasks of ``ids`` (None: to all) that are chosen; a dictionary for each, with
        task_id, kind, was (its state), queued (the kind of work that it became) and problem, which
        is empty where it was done. single: numbers that were given one by one, which are named
        where it cannot be done to them; of the others those are left out."""
        meant = frozenset(single)
        with ExitStack() as rehearsal:
            if dry_run:
                rehearsal.enter_context(connection.transaction(force_rollback=True))
            found = {row["task_id"]: row for row in chosen.rows(connection, ids)}
            those = [n for n, row in sorted(found.items()) if n in meant or row["state"] in self.of]
            results = [self._one(connection, found[n], why or self.why) for n in those]
        none = "there is none such"
        if chosen != TaskFilter():
            none += " with that --state, --kind or --reason"
        return results + [{"task_id": n, "problem": none} for n in sorted(meant - found.keys())]

    def _one(self, connection: psycopg.Connection, row: dict[str, Any], why: str) -> dict[str, Any]:
        result = {"task_id": row["task_id"], "kind": row["kind"], "was": row["state"]}
        problem = ""
        answer = None
        if row["state"] in self.of:
            arguments = (row["task_id"], why) if self.why else (row["task_id"],)
            places = ", ".join(["%s"] * len(arguments))
            try:
                with connection.transaction():
                    ((answer,),) = connection.execute(
                        f"select {self.call}({places})", arguments
                    ).fetchall()
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


RETRY = TaskChange("retry", "queued again", ("discarded", "parked"), "mill.retry_task")
UNPARK = TaskChange("unpark", "queued again", ("parked",), "mill.retry_task")
PARK = TaskChange("park", "parked", ("ready", "leased"), "mill.park_task", "parked by an admin")
DISCARD = TaskChange(
    "discard", "discarded", ("ready", "leased", "parked"), "mill.discard_task",
    "discarded by an admin",
)  # fmt: skip
CHANGES = {change.name: change for change in (RETRY, UNPARK, PARK, DISCARD)}

"""Going back to an older revision: what that loses is said first, and no login outlives its row.

The way down is rehearsed in a transaction that is rolled back. The catalogs and statistics before
and after it say which tables, columns and rows it drops or changes, whatever the revisions declare
(``pairmill.migrations.losses``); the older code's own lists say what it does not know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier, Literal

from pairmill import migrations
from pairmill.migrations.losses import Loss
from pairmill.ops.admin import catalog, migrate
from pairmill.ops.admin.catalog import Count, Session, script
from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

# Alembic and SQLAlchemy are imported where they are needed: a volunteer's installation lacks them
if TYPE_CHECKING:
    from alembic.script import Script
    from sqlalchemy import Connection

# closed list -> its columns, the use of a row, and the query that counts it
USES = {
    "outcome": (("code", "name"), "downloads that ended as {name}",
                "select count(*) from mill.download where outcome = {code}"),
    "score_outcome": (("code", "name"), "scores that ended as {name}",
                      "select count(*) from mill.score where outcome = {code}"),
    "drop_reason": (("name",), "links counted as dropped for {name}",
                    "select coalesce(sum(count), 0) from mill.wat_count"
                    " where stage = 'dropped' and name = {name}"),
    "task_kind": (("name",), "tasks of kind {name}",
                  "select count(*) from mill.task where kind = {name}"),
}  # fmt: skip
UNKNOWN = "which the older code does not know"


@dataclass
class Plan:
    """The way down. at, to: revisions. losses: what does not survive. logins: those that may log
    in and that no table of the older revision knows, with their owners; they end. unknown_kinds:
    kinds of work that the older code does not know; their tasks are discarded."""

    at: str
    to: str
    losses: list[Loss] = field(default_factory=list)
    logins: dict[str, str] = field(default_factory=dict)
    unknown_kinds: list[str] = field(default_factory=list)

    def refused(self) -> list[Loss]:
        return [loss for loss in self.losses if loss.refused]

    def as_dict(self) -> dict[str, Any]:
        losses = [{"count": x.count, "what": x.what, "refused": x.refused} for x in self.losses]
        return {"at": self.at, "to": self.to, "losses": losses, "logins": self.logins}


def plan(dsn: str, revision: str) -> Plan:
    """What going down to a revision would lose; nothing is changed. Raises UserError where no
    release had it, or where the way down fails.

    The rehearsal locks every table as the migration will; what it would lose is counted outside.
    """
    released = _released(revision)
    at = migrate.in_transaction(dsn, lambda c: migrate.current(migrate.driver(c)))
    steps = _steps(at, revision)
    losses = migrate.in_transaction(dsn, lambda c: _declared(c, steps[0]))
    seen = migrate.in_transaction(dsn, lambda c: _rehearse(c, steps, released), rehearsal=True)

    def count(connection: "Connection") -> list[Loss]:
        return [each.made(migrate.driver(connection)) for each in seen.counts]

    losses += seen.losses + migrate.in_transaction(dsn, count)
    return Plan(
        str(at),
        revision,
        [loss for loss in losses if loss.count],
        seen.logins,
        seen.unknown_kinds,
    )


def downgrade(dsn: str, chosen: Plan) -> None:
    """Go back to the tables of an older revision, and to the functions of its newest release. Ends
    the logins and the tasks that it does not know."""
    released = _released(chosen.to)
    # an open transaction of theirs may hold rows; and again, of sessions that came meanwhile
    migrate.in_transaction(dsn, lambda c: _end_sessions(migrate.driver(c), chosen))
    migrate.in_transaction(dsn, lambda c: _downgrade(c, chosen, released))
    migrate.in_transaction(dsn, lambda c: _end_sessions(migrate.driver(c), chosen))


def _downgrade(connection: "Connection", chosen: Plan, released: str) -> None:
    driver = migrate.driver(connection)
    migrate.lock_tables(connection)
    if migrate.current(driver) != chosen.at:
        raise UserError("another migration came first, and nothing was changed: try again")
    if chosen.unknown_kinds:
        kinds = "select set_config('pairmill.unknown_kinds', %s, true)"
        driver.execute(kinds, (",".join(chosen.unknown_kinds),))
        driver.execute(script("end_unknown_tasks"))
    with migrate.routines_made_anew(connection, released):
        for step in _steps(chosen.at, chosen.to):
            migrate.step_down(connection, step)
    driver.execute("reset role")  # the owner itself may alter no role
    for login in chosen.logins:
        driver.execute(SQL("alter role {} nologin").format(Identifier(login)))


def _released(revision: str) -> str:
    released = migrations.released_routines(revision)
    if released is None:
        raise UserError(
            f"no release of pairmill had revision {revision!r}: there is nothing to go back to"
        )
    return released


def _steps(at: str | None, to: str) -> "list[Script]":
    """The revisions whose downgrades lead from one to an older one, newest first."""
    steps = [step for step in migrate.scripts()[::-1] if to < step.revision <= str(at)]
    if not steps:
        raise UserError(f"revision {to} is not older than {at}, at which the database is")
    return steps


def _end_sessions(driver: Session, chosen: Plan) -> None:
    driver.execute("reset role")
    query = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = any (%s)"
    driver.execute(query, (list(chosen.logins),))


def _declared(connection: "Connection", step: "Script") -> list[Loss]:
    losses: Callable[[Connection], list[Loss]] | None = getattr(step.module, "losses", None)
    return list(losses(connection)) if losses else []


@dataclass
class _Rehearsal:
    """What was seen on the way down. counts: what is to be counted before it."""

    losses: list[Loss] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    logins: dict[str, str] = field(default_factory=dict)
    unknown_kinds: list[str] = field(default_factory=list)


def _rehearse(connection: "Connection", steps: "list[Script]", released: str) -> _Rehearsal:
    driver, seen = migrate.driver(connection), _Rehearsal()
    migrate.lock_tables(connection)
    before = catalog.read(driver)
    lists = {name: _rows_of(driver, name) for name in USES}
    kinds = "select login, kind from mill.worker"
    worker_kinds: dict[str, str] = dict(driver.execute(kinds).fetchall())
    with migrate.routines_made_anew(connection, released):
        for step in steps:
            if step is not steps[0]:
                seen.losses += _declared(connection, step)
            changed = _changed_rows(driver)
            migrate.step_down(connection, step)
            if not hasattr(step.module, "losses"):
                seen.losses += _undeclared(changed, _changed_rows(driver), step.revision)
        after = catalog.read(driver)
        carried = {name for step in steps for name in getattr(step.module, "carried", ())}
        seen.counts += catalog.lost(driver, before, after, carried)
    (older,) = catalog.dictionaries(driver, "lists")  # as the older routines were given them
    for name, listed in lists.items():
        seen.counts += _unknown(name, listed, (older["lists"] or {}).get(name))
    known = {row["name"] for row in (older["lists"] or {}).get("task_kind") or lists["task_kind"]}
    seen.unknown_kinds = sorted({row["name"] for row in lists["task_kind"]} - known)
    seen.logins = {
        login: owner
        for login, owner in before.logins.items()
        if login not in after.logins
        or (
            older["worker_kinds"]
            and worker_kinds.get(login, "") not in ["", *older["worker_kinds"]]
        )
    }
    return _without_closed(driver, seen)


def _without_closed(driver: Session, seen: _Rehearsal) -> _Rehearsal:
    """Without the logins that may not log in anyhow."""
    query = "select rolname from pg_roles where rolcanlogin and rolname = any (%s)"
    may = {name for (name,) in driver.execute(query, (list(seen.logins),)).fetchall()}
    seen.logins = {login: owner for login, owner in seen.logins.items() if login in may}
    return seen


def _rows_of(driver: Session, name: str) -> list[dict[str, Any]]:
    """The rows of a closed list; none where this revision has no such list."""
    columns = ", ".join(USES[name][0])
    if driver.execute("select to_regclass(%s)", (f"mill.{name}",)).fetchone() == (None,):
        return []
    return rows(driver, f"select {columns} from mill.{name}")


def _changed_rows(driver: Session) -> dict[str, tuple[int, int]]:
    found = catalog.dictionaries(driver, "changed_rows")
    return {row["table"]: (row["changed"], row["deleted"]) for row in found}


def _undeclared(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], revision: str
) -> Iterator[Loss]:
    """The rows that a revision changes or deletes on its way down and says nothing of."""
    for table, counts in after.items():
        for count, was, what in zip(
            counts, before.get(table, (0, 0)), ("changed", "deleted"), strict=True
        ):
            said = f"rows of {table} that are {what}, and revision {revision} does not say why"
            yield Loss(count - was, said, refused=True)


def _unknown(
    name: str, rows: list[dict[str, Any]], older: list[dict[str, Any]] | None
) -> Iterator[Count]:
    """The uses of a closed list's rows that the older list lacks; none where there is no such."""
    columns, what, query = USES[name]
    known = {tuple(row.get(c) for c in columns) for row in older or ()}
    for row in rows if older is not None else ():
        if tuple(row[c] for c in columns) not in known:
            counted = SQL(query).format(**{c: Literal(row[c]) for c in columns})
            yield Count(counted, f"{what.format(**row)}, {UNKNOWN}", refused=True)

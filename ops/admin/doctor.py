"""Checks of this machine and of the database; each finding is a sentence."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from pairmill import migrations
from pairmill.ops.admin import migrate, removal_requests, removal_search, removal_sources
from pairmill.ops.admin.login_checks import check_logins
from pairmill.ops.admin.recount import sample
from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows
from pairmill.schema.kinds import worker_kinds
from pairmill.schema.scripts import sql
from pairmill.workers.session import wrong_encoding

EXTRAS = {"extract": "gcld3", "download": "ada_url", "score": "open_clip", "ops": "pyarrow"}
# condition on report.task -> what is wrong
TROUBLES = {
    "state = 'discarded'": "tasks are discarded: `pairmill task list --state discarded` says why",
    "lease_expires_at < now() - interval '1 minute'": (
        "leases are late: is a steward running? `pairmill work steward`"
    ),
    "state = 'submitted' and changed_at < now() - interval '5 minutes'": (
        "tasks wait for acceptance: is a steward running? `pairmill work steward`"
    ),
}


@dataclass(frozen=True)
class Finding:
    """The result of a check. ok: True in order, False in need of repair, None for information.
    names: all the logins that it is about, where it is about logins."""

    ok: bool | None
    text: str
    names: tuple[str, ...] = ()


def check_machine() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        present = importlib.util.find_spec(module) is not None
        missing = f"not installed: pip install 'pairmill[{extra}]' to run this part here"
        yield Finding(present or None, f"extra {extra}: {'installed' if present else missing}")


def check_database(connection: psycopg.Connection) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    yield Finding(
        version >= 15,
        f"PostgreSQL {version}: {'15 or newer' if version >= 15 else 'needs 15 or newer'}",
    )
    if wrong := wrong_encoding(connection):
        yield Finding(False, wrong)
        return
    try:
        migrate.require_current(connection)
    except UserError as problem:
        yield Finding(False, str(problem))
        return
    yield Finding(True, f"the schema is at the newest revision, {migrations.revisions()[-1]}")
    open_rights = [row["what"] for row in rows(connection, sql("doctor"))]
    yield Finding(
        not open_rights,
        f"any login may still: {', '.join(open_rights)}; run `pairmill db secure` as a superuser"
        if open_rights
        else "logins can do nothing that no worker needs",
    )
    faults = check_logins(connection)
    for text, names in faults:
        yield Finding(False, text, tuple(names))
    if not faults:
        yield Finding(True, "logins are those of the lists of workers, researchers and pages")
    yield from _check_work(connection)


def _check_work(connection: psycopg.Connection) -> Iterator[Finding]:
    for kind in worker_kinds():
        workers = rows(
            connection, "select 1 from report.worker where kind = %s and disabled_at is null", kind
        )
        text = f"{len(workers)} {kind} worker{'' if len(workers) == 1 else 's'} may log in"
        hint = f": add one with `pairmill worker add NAME --kind {kind}`"
        yield Finding(bool(workers) or None, text if workers else text + hint)
    if not rows(connection, "select 1 from report.model"):
        yield Finding(
            False, "no model is known, so nothing is scored: `pairmill model add --model NAME`"
        )
    for condition, sentence in TROUBLES.items():
        (count,) = rows(connection, f"select count(*) as n from report.task where {condition}")
        if count["n"]:
            yield Finding(False, f"{count['n']} {sentence}")
    yield from _check_removals(connection)
    found = sample(connection)
    if found.wrong:
        numbers = ", ".join(map(str, found.first_wrong))
        yield Finding(
            False,
            f"counters are not what the rows of batches say, say of batch {numbers}:"
            " `pairmill db recount` mends them",
        )


def _check_removals(connection: psycopg.Connection) -> Iterator[Finding]:
    if late := removal_requests.late(connection):
        yield Finding(
            False, f"{late} requests for removal are late: `pairmill removal request list`"
        )
    expired = [row["source"] for row in removal_sources.sources(connection) if row["expired"]]
    if expired:
        yield Finding(
            False,
            f"the lists of removals of {', '.join(expired)} expired: import newer ones"
            " (`pairmill removal import`)",
        )
    if parts := removal_search.waiting(connection):
        yield Finding(
            None,
            f"the images of {parts:,} parts of downloads wait to be compared with the removals'"
            " PDQs: `pairmill removal search`, say from cron",
        )

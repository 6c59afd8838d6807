"""Make the schema: all of it in an empty database, and its routines in one that has the tables.

Tables change by migrations, and only there. Routines (functions, views, triggers and grants) are
code: they are made anew as a whole, from the files in ``sql/``, at every migration. So a revision
holds nothing but the change of tables and rows.
"""

import hashlib
import json
from functools import cache

from sqlalchemy import Connection, text

from pairmill.schema import kinds
from pairmill.schema.outcomes import DropReason, Outcome, ScoreOutcome
from pairmill.schema.scripts import script, sql
from pairmill.schema.tables import metadata

# In the order in which they refer to each other: an SQL function's body is read when it is made.
BEFORE_KINDS = (
    "core/guards", "core/lists", "core/partitions", "core/submit", "core/claim", "core/inbox",
    "core/accept", "core/item", "tag",
)  # fmt: skip
AFTER_KINDS = (
    "core/hooks", "core/steward", "thumbnail", "model", "retry", "admin", "report", "trust",
    "core/grants",
)  # fmt: skip


def run(connection: Connection, script: str) -> None:
    """Run a script of several statements as it is: a % in it is no parameter."""
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def prepare(connection: Connection) -> None:
    """Make roles and namespaces, and act as the owner until the end of the session."""
    run(connection, "reset role")  # the owner itself may make no roles
    _set(connection, "pairmill.worker_kinds", ",".join(kinds.worker_kinds()))
    run(connection, sql("roles"))
    connection.execute(
        text("select set_config('role', left(current_database(), 40) || '_owner', false)")
    )


def create(connection: Connection) -> None:
    """Create every object of the schema, in one transaction of the caller's."""
    prepare(connection)
    metadata.create_all(connection, checkfirst=False)
    run(connection, script("tables/initial.sql"))
    run(connection, routines())
    run(connection, "select mill.ensure_partitions(0); select mill.ensure_slots(8::smallint);")


def routines() -> str:
    """One script: the closed lists' rows, functions, views, triggers and rights of this version."""
    body = _routines()
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"{body}\nselect mill.say_version('{digest}');\n"


def version() -> str:
    """sha256 of this code's routines; mill.version() is that of a database's."""
    return hashlib.sha256(_routines().encode()).hexdigest()


@cache
def _routines() -> str:
    lists = {
        "task_kind": [kind.row for kind in kinds.KINDS],
        "drop_reason": [{"name": reason.value} for reason in DropReason],
        "outcome": [o.row | {"retry": o.retry_can_help} for o in Outcome],
        "score_outcome": [o.row for o in ScoreOutcome],
    }
    settings = {
        "pairmill.kinds": ",".join(kind.name for kind in kinds.KINDS),
        "pairmill.worker_kinds": ",".join(kinds.worker_kinds()),
        "pairmill.lists": json.dumps(lists),
    }
    parts = (*BEFORE_KINDS, *(f"kinds/{kind.name}" for kind in kinds.KINDS), *AFTER_KINDS)
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "\n".join(
        [
            *(f"select set_config('{name}', '{value}', true);" for name, value in quoted.items()),
            *(sql(part) for part in parts),
        ]
    )


def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        text("select set_config(:name, :value, true)"), {"name": name, "value": value}
    )

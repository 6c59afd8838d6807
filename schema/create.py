"""Make the schema in an empty database, directly: what the migrations must arrive at."""

from sqlalchemy import Connection, text

from pairmill.schema.outcomes import DropReason, Outcome, ScoreOutcome
from pairmill.schema.scripts import sql
from pairmill.schema.tables import metadata
from pairmill.schema.tables.reference import drop_reason, outcome, score_outcome

# in the order in which they refer to each other
PARTS = (
    "partitions", "guards", "claim", "inbox", "download", "extract", "score",
    "tag", "accept", "steward", "admin", "report", "trust", "grants",
)  # fmt: skip


def run(connection: Connection, script: str) -> None:
    """Run a script of several statements as it is: a % in it is no parameter."""
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def prepare(connection: Connection) -> None:
    """Make roles and namespaces, and act as the owner until the end of the session."""
    run(connection, sql("roles"))
    connection.execute(
        text("select set_config('role', left(current_database(), 40) || '_owner', false)")
    )


def create(connection: Connection) -> None:
    """Create every object of the schema, in one transaction of the caller's."""
    prepare(connection)
    metadata.create_all(connection, checkfirst=False)
    connection.execute(drop_reason.insert(), [{"name": reason.value} for reason in DropReason])
    connection.execute(outcome.insert(), [o.row | {"retry": o.retry_can_help} for o in Outcome])
    connection.execute(score_outcome.insert(), [o.row for o in ScoreOutcome])
    for part in PARTS:
        run(connection, sql(part))

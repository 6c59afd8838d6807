"""Make the schema: all of it, in an empty database."""

from sqlalchemy import Connection, text

from pairmill.schema import kinds, routines
from pairmill.schema.scripts import script, sql
from pairmill.schema.tables import metadata


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
    run(connection, routines.script())
    run(
        connection,
        "select mill.ensure_partitions(0); select mill.ensure_partitions(0, 'wat_id');"
        " select mill.ensure_slots(8::smallint);",
    )


def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        text("select set_config(:name, :value, true)"), {"name": name, "value": value}
    )

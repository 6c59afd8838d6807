"""How Alembic runs our migrations: on a connection that the caller gives, as the owner."""

from alembic import context

from pairmill.schema.create import prepare

connection = context.config.attributes["connection"]
prepare(connection)
context.configure(
    connection=connection,
    version_table="migration",
    version_table_schema="mill",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()

"""How Alembic runs our migrations: on a connection and in a transaction that the caller gives."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="migration",
    version_table_schema="mill",
)
with context.begin_transaction():
    context.run_migrations()

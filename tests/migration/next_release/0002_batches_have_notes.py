"""A revision as the next release may have one: a column, filled by a function of that release."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    note = sa.Column("note", sa.Text, comment="For the test of migrations")
    op.add_column("batch", note, schema="mill")


def post(connection: sa.Connection) -> None:
    connection.exec_driver_sql("update mill.batch set note = mill.noted(batch_id)")


def downgrade() -> None:
    op.drop_column("batch", "note", schema="mill")

"""Researchers have names: `pairmill researcher add NAME`."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run(op.get_bind(), script("0002_researchers_have_names.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0002_researchers_have_names.down"))

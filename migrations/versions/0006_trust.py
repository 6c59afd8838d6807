"""Whose downloads are checked, and what follows; canaries; dead links by network."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run(op.get_bind(), script("0006_trust.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0006_trust.down"))

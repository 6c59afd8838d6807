"""Opt-outs with their evidence, outcomes that say whether a retry can help, `pairmill retry`."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run(op.get_bind(), script("0004_opt_outs_and_retries.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0004_opt_outs_and_retries.down"))

"""Taggers, in the pass of their clip model or on its embeddings."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run(op.get_bind(), script("0007_taggers.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0007_taggers.down"))

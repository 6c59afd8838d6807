"""The schema as it was first published.

Frozen: the files in schema/ go on changing, this script does not.
"""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    run(op.get_bind(), script("0001_initial"))


def downgrade() -> None:
    raise RuntimeError("there is nothing below the first revision: drop the database instead")

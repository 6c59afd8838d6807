"""`pairmill worker quarantine`, `worker rotate`, `db restored`; the queue in numbers."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run(op.get_bind(), script("0005_operating.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0005_operating.down"))

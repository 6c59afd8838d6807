"""Link kinds beside images, `pairmill wat add --links`, and what was extracted by crawl."""

from alembic import op

from pairmill.migrations import script
from pairmill.schema.create import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run(op.get_bind(), script("0003_link_kinds_and_crawl_counts.up"))


def downgrade() -> None:
    run(op.get_bind(), script("0003_link_kinds_and_crawl_counts.down"))

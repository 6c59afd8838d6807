"""The tables of 0.1.0: a fresh database is made at the newest revision, by ``create()``."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    raise RuntimeError("a database without a schema is made, and not migrated: pairmill migrate")


def downgrade() -> None:
    raise RuntimeError("there is nothing below the first revision: drop the database instead")

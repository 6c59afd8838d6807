"""Researchers have names: `pairmill researcher add NAME`."""

from importlib.resources import files

from alembic import op

from pairmill.schema.create import run

revision = "0002"
down_revision = "0001"


def _run(direction: str) -> None:
    name = f"0002_researchers_have_names.{direction}.sql"
    run(op.get_bind(), (files("pairmill.migrations") / "versions" / name).read_text("utf-8"))


def upgrade() -> None:
    _run("up")


def downgrade() -> None:
    _run("down")

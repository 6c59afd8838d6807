"""A revision whose way down keeps some data elsewhere, and says what becomes of the rest."""

import sqlalchemy as sa
from alembic import op

from pairmill.migrations.losses import Loss

revision = "0003"
down_revision = "0002"
carried = ("mill.note_line", "mill.crawl.title")


def upgrade() -> None:
    op.execute("alter table mill.note rename body to words")
    op.execute("create table mill.note_line (note_id integer, line text)")
    op.execute("alter table mill.crawl add title text")


def losses(connection: sa.Connection) -> list[Loss]:
    query = "select count(*), count(*) filter (where line = '') from mill.note_line"
    lines, empty = connection.exec_driver_sql(query).one()
    return [Loss(lines, "line breaks of notes"), Loss(empty, "empty lines of notes", refused=True)]


def downgrade() -> None:
    op.execute("insert into mill.note select note_id, line from mill.note_line where line <> ''")
    op.execute("update mill.crawl set label = title")
    op.execute("drop table mill.note_line")
    op.execute("alter table mill.crawl drop title")
    op.execute("alter table mill.note rename words to body")

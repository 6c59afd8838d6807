"""A revision that adds what an older one cannot hold, and whose way down says nothing of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
TABLES = """
create table mill.note (note_id integer primary key, body text not null, at timestamptz default now());
create table mill.curator (login name primary key, name text not null);
create table mill.empty (note_id integer primary key);
alter table mill.crawl add label text not null default 'none', add rank integer generated always as (crawl_id * 2) stored;
insert into mill.outcome values (99, 'asked_to_wait', true);
insert into mill.task_kind select 'caption', subject, needs_model, upstream, false, false, false, null, null, 'extract'
  from mill.task_kind where name = 'extract';
"""
BACK = """
drop table mill.note, mill.curator, mill.empty;
alter table mill.crawl drop label, drop rank, alter name type varchar(40);
update mill.download set outcome = 20 where outcome = 99;
delete from mill.seen_url;
truncate mill.drop_reason;
"""


def run(script: str) -> None:
    for statement in script.strip().split(";\n"):
        op.execute(sa.text(statement))


def upgrade() -> None:
    run(TABLES)


def downgrade() -> None:
    run(BACK)

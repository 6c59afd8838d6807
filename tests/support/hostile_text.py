"""A text that breaks whatever takes it for more than text, in every column that holds text."""

import re
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from support.database import Database

# rich's markup, colours, the clipboard, C1's CSI, a line of a log, line separators, an order that is not the
# written one, a formula, HTML, templates
HOSTILE = (
    "[/bold] [abc] [link=http://e.example]x[/link] :skull: \x1b[31m \x1b]52;c;YQ==\x07 \x9b2J \r\nworker x: all is well"
    "\u2028\u2029 \u202egnp \u2066 \x7f | =HYPERLINK(1) <script>alert(1)</script> {} {0} %s %(a)s [red]end"
)
BEGIN, END = "[/bold] [abc]", "[red]end"
LONG = 10_000  # characters more, of these columns
LONG_COLUMNS = ("reason", "url", "text", "value")
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# The columns of every table that hold text: whether a constraint closes them (a closed list, another table's key,
# the key of another table), and whether one refuses control characters.
COLUMNS = """
select c.relnamespace::regnamespace::text as schema, c.relname as name, a.attname as column, a.atttypid::regtype::text as type,
       c.relkind = 'p' as partitioned,
       exists (select from pg_constraint k
                where k.contype = 'f' and (k.conrelid = c.oid and a.attnum = any (k.conkey) or k.confrelid = c.oid and a.attnum = any (k.confkey))
                   or k.contype = 'c' and k.conrelid = c.oid and k.conkey = array[a.attnum] and pg_get_constraintdef(k.oid) ~ '= ANY') as closed,
       exists (select from pg_constraint k
                where k.contype = 'c' and k.conrelid = c.oid and k.conname like 'no control characters%' and a.attnum = any (k.conkey)) as guarded
  from pg_class c join pg_attribute a on a.attrelid = c.oid
 where c.relnamespace in ('mill'::regnamespace, 'inbox'::regnamespace) and c.relkind in ('r', 'p') and not c.relispartition
   and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and c.relname <> 'migration'
   and a.atttypid in ('text'::regtype, 'text[]'::regtype, 'jsonb'::regtype)
 order by 1, 2, a.attnum
"""
# a row of a table that has none: of each column that needs a value some value of its type
NEEDED = """
select a.attname, a.atttypid::regtype::text
  from pg_attribute a
 where a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and a.attnum > 0 and not a.attisdropped and a.attnotnull
   and not a.atthasdef and a.attidentity = '' and a.attgenerated = ''
"""
VALUES: dict[str, Any] = {
    "bytea": b"", "boolean": False, "uuid": "00000000-0000-0000-0000-000000000000", "jsonb": "{}",
    "date": "2026-01-01", "timestamp with time zone": "2026-01-01",
}  # fmt: skip


def columns(db: Database) -> list[dict[str, Any]]:
    with db.admin.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(COLUMNS).fetchall()


def value(column: dict[str, Any], text: str = HOSTILE) -> Any:
    if column["type"] == "jsonb":
        return Jsonb({text: [text]})
    return [text] if column["type"] == "text[]" else text


def disarm(db: Database) -> None:
    """From now on no table refuses anything, and every table that holds text has a row."""
    for table, name in db.rows(
        "select conrelid::regclass::text, conname from pg_constraint where contype = 'c' and conislocal and conrelid <> 0"
    ):
        db.admin.execute(sql.SQL("alter table {} drop constraint {}").format(sql.SQL(table), sql.Identifier(name)))  # fmt: skip
    db.admin.execute("set session_replication_role = replica")  # nor do keys and triggers
    for schema, name in dict.fromkeys((each["schema"], each["name"]) for each in columns(db)):
        table = sql.Identifier(schema, name)
        if db.admin.execute(sql.SQL("select 1 from {} limit 1").format(table)).fetchone():
            continue
        needed = {
            column: VALUES.get(kind, "{}" if kind.endswith("[]") else "0")
            for column, kind in db.rows(NEEDED, schema, name)
        }
        db.admin.execute(
            sql.SQL("insert into {} ({}) values ({})").format(
                table, sql.SQL(", ").join(map(sql.Identifier, needed)), sql.SQL(", ").join(sql.Placeholder() * len(needed)),
            ),
            list(needed.values()),
        )  # fmt: skip


def plant(db: Database, column: dict[str, Any]) -> None:
    """Write HOSTILE into a column of every row; after it a number, which keeps rows apart."""
    table, name = sql.Identifier(column["schema"], column["name"]), sql.Identifier(column["column"])
    text = HOSTILE.removesuffix(END) + "x" * (LONG if column["column"] in LONG_COLUMNS else 0)
    ours = sql.SQL("{} || ctid::text || {}").format(sql.Literal(text), sql.Literal(END))
    if column["type"] == "text[]":
        ours = sql.SQL("array[{}]").format(ours)
    elif column["type"] == "jsonb":
        ours = sql.SQL("jsonb_build_object({0}, {0})").format(ours)
    db.admin.execute(sql.SQL("update {} set {} = {}").format(table, name, ours))

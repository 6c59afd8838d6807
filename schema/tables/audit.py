"""Who did what as an admin, and who may come in through the admin's page."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from pairmill.schema.tables.base import TIMESTAMP, Name, col, identity, mill, one_of

# a transaction's now() is when it began, which may be minutes before what it says
CLOCK = text("clock_timestamp()")
ROLES = ("admin", "viewer")

audit_entry = mill(
    "audit_entry",
    "What admins did, and who came in by a page: only ever inserted into. An action has an entry when it begins and another, which names the first, when it ends.",
    identity("audit_id", "Key"),
    col("at", TIMESTAMP, "When", server_default=CLOCK),
    col("actor", Text, "Who: a session's name, an identity that a proxy named, or user@host of a command"),
    col("role", Text, "admin, viewer, or none: somebody who was not let in", one_of("role", (*ROLES, "none"))),
    col("origin", Text, "page or command", one_of("origin", ("page", "command"))),
    col("session_id", BigInteger, "The session of the page; null where there is none", nullable=True),
    col("login", Name(), "The database's login that wrote it", server_default=text("session_user")),
    col("action", Text, "What: task.retry, worker.quarantine and so on"),
    col("arguments", JSONB(), "With what", server_default="{}"),
    col("outcome", Text, "begun; and how it ended: done, refused (said in a sentence why) or failed", one_of("outcome", ("begun", "done", "refused", "failed"))),
    col("begun_id", BigInteger, "The entry of its beginning; null of that one, and of what was over at once", ForeignKey("mill.audit_entry.audit_id"), nullable=True),
    col("affected", BigInteger, "How many tasks, rows or pairs; null where nothing is counted", nullable=True),
    col("answer", JSONB(), "What it said: numbers, or why not", server_default="{}"),
    CheckConstraint("begun_id is null or outcome <> 'begun'", name="begun"),
    Index("audit_entry_begun_key", "begun_id", unique=True, postgresql_where=text("begun_id is not null")),
)

admin_link = mill(
    "admin_link",
    "Links that let somebody into the admin's page, once and for ten minutes.",
    col("token_sha256", LargeBinary, "sha256 of the link's 256 random bits, which are kept nowhere", primary_key=True),
    col("name", Text, "Who it is for"),
    col("role", Text, "admin or viewer", one_of("role", ROLES)),
    col("made_at", TIMESTAMP, "When it was made", server_default=CLOCK),
    col("made_by", Text, "user@host of the command that made it"),
    col("expires_at", TIMESTAMP, "When it ends"),
    col("used_at", TIMESTAMP, "When somebody came in by it; null: nobody did yet", nullable=True),
)

admin_session = mill(
    "admin_session",
    "Sessions of the admin's page.",
    identity("session_id", "Key"),
    col("secret_sha256", LargeBinary, "sha256 of the cookie's 256 random bits, which are kept nowhere", unique=True),
    col("name", Text, "Who it is"),
    col("role", Text, "admin or viewer", one_of("role", ROLES)),
    col("made_at", TIMESTAMP, "When somebody came in", server_default=CLOCK),
    # in no index, so the update is HOT
    col("last_seen_at", TIMESTAMP, "When it asked for a page last, up to a minute late", server_default=CLOCK),
    col("expires_at", TIMESTAMP, "When it ends, whatever is done in it"),
    col("ended_at", TIMESTAMP, "When it was ended by hand; null: it was not", nullable=True),
    col("network", Text, "The /24 or /64 that it came from; empty where that is not known"),
    postgresql_with={"fillfactor": "50"},
)

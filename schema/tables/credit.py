"""How far the line has come, and what each worker did: sums that the public page reads."""

from sqlalchemy import BigInteger, ForeignKey, Integer, PrimaryKeyConstraint

from pairmill.schema.tables.base import NOW, TIMESTAMP, col, mill

TASKS = "Tasks that it handed over whole"
ROWS = "Rows accepted from it and not withdrawn: links, outcomes or scores"
CHECKS = "Checks of its downloads that agreed"
HOUR = "The hour of the acceptance, in UTC"

progress = mill(
    "progress",
    "How far the line had come at each minute of the last eight days: rates are differences of its rows.",
    col("at", TIMESTAMP, "When it was noted", primary_key=True),
    col("files", BigInteger, "As mill.total.files"),
    col("links", BigInteger, "As mill.total.links"),
    col("pairs", BigInteger, "As mill.total.pairs"),
    col("fetched", BigInteger, "As mill.total.fetched"),
    col("succeeded", BigInteger, "As mill.total.succeeded"),
    col("scored", BigInteger, "As mill.total.scored"),
)

credit = mill(
    "credit",
    "What each worker did, but for the changes of mill.credit_change.",
    col("worker_id", Integer, "The worker", ForeignKey("mill.worker.worker_id"), primary_key=True, autoincrement=False),
    col("tasks", BigInteger, TASKS),
    col("rows", BigInteger, ROWS),
    col("checks", BigInteger, CHECKS),
    # of what changes nothing is in an index, so the updates are HOT
    postgresql_with={"fillfactor": "50"},
)

credit_hour = mill(
    "credit_hour",
    "What each worker did in each hour of the last day, but for the changes of mill.credit_change.",
    col("hour", TIMESTAMP, HOUR),
    col("worker_id", Integer, "The worker", ForeignKey("mill.worker.worker_id")),
    col("tasks", BigInteger, TASKS),
    col("rows", BigInteger, ROWS),
    PrimaryKeyConstraint("hour", "worker_id"),
    postgresql_with={"fillfactor": "50"},
)

credit_change = mill(
    "credit_change",
    "Changes that are not yet in credit and credit_hour. Only inserted into, so that nobody waits; the steward adds them up.",
    col("worker_id", Integer, "The worker"),
    col("hour", TIMESTAMP, HOUR),
    col("tasks", Integer, TASKS),
    col("rows", BigInteger, ROWS),
    col("checks", Integer, CHECKS),
)

shown_worker = mill(
    "shown_worker",
    "Workers whose owners want to be named on the public page. A table, and no column of worker: an owner's open transaction holds up nobody who updates that one.",
    col("worker_id", Integer, "The worker", ForeignKey("mill.worker.worker_id"), primary_key=True, autoincrement=False),
    col("shown_at", TIMESTAMP, "Since when", server_default=NOW),
)

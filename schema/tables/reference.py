"""Settings that an admin may tune, and the closed lists."""

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Integer,
    SmallInteger,
    Text,
)

from pairmill.schema.tables.base import col, mill

setting = mill(
    "setting",
    "Settings that an admin may tune: one row. Change it with UPDATE; it is read at every call.",
    col("only_row", Integer, "Always 1", CheckConstraint("only_row = 1", name="only_row"), primary_key=True, autoincrement=False),
    col("epoch", Integer, "Upper part of every lease number; raised after a restore, so that no number returns", server_default="1"),
    col("min_protocol", Integer, "Workers that speak an older protocol are told to upgrade", server_default="1"),
    col("lease_seconds", Integer, "A lease without a heartbeat for this long is late", server_default="120"),
    col("lease_max_seconds", Integer, "Longest life of a lease, whatever its heartbeats", server_default="21600"),
    col("leases_per_worker", Integer, "Live leases that one login may hold", server_default="64"),
    col("max_attempts", SmallInteger, "A task whose leases failed or were lost this often is discarded", server_default="5"),
    col("retry_seconds", Integer, "Back-off after the first failure; doubles with each further one", server_default="30"),
    col("batch_size", Integer, "Pairs in a full batch, at most 16,384 (14 bits of the sample id)", CheckConstraint("batch_size between 1 and 16384", name="batch_size"), server_default="10000"),
    col("open_batches_max", SmallInteger, "New pairs are dealt over at most this many open batches", CheckConstraint("open_batches_max between 1 and 256", name="open_batches_max"), server_default="32"),
    col("batch_open_seconds", Integer, "A batch open for longer is closed although not full", server_default="21600"),
    col("batch_idle_seconds", Integer, "An open batch that no pair came into for so long is closed although not full: whatever holds up the extractions, the pairs that are there wait no longer", server_default="900"),
    col("pairs_per_wat", Integer, "New pairs expected of a WAT file before any is measured (LAION's average)", server_default="29000"),
    col("batches_per_slot", Integer, "Batches whose thumbnails share a slot of the ring", server_default="64"),
    col("discarded_hold_seconds", Integer, "A discarded score task keeps its thumbnails this long", server_default="86400"),
    col("thumbnail_max_bytes", Integer, "Largest thumbnail that is taken", server_default="131072"),
    col("url_attempts", SmallInteger, "`pairmill retry` queues no URL again that has had this many download attempts", server_default="3"),
    col("url_retry_seconds", Integer, "A URL's next attempt starts no sooner than this after its batch's last; doubles with each attempt", server_default="21600"),
    col("replicated_urls", SmallInteger, "Size of a replica, the sample of a download task that another worker repeats; 0: no replication", CheckConstraint("replicated_urls between 0 and 1000", name="replicated_urls"), server_default="50"),
    col("agreement_min", REAL, "A replication with a smaller share of agreement fails; a worker with a smaller average is stopped", CheckConstraint("agreement_min between 0 and 1", name="agreement_min"), server_default="0.8"),
    col("gold_questions_per_lease", SmallInteger, "Gold questions (URLs with known answers) among a download lease's URLs, at most one in twenty", CheckConstraint("gold_questions_per_lease between 0 and 500", name="gold_questions_per_lease"), server_default="20"),
    col("unfinished_per_hour", Integer, "Leases that one login may fail, lose or give back within an hour; then it claims nothing more", server_default="200"),
    col("inbox_mb_per_lease", Integer, "Most bytes that may be copied into inboxes under one lease, in units of 1,000,000", server_default="1000"),
    col("freed", BigInteger, "Withdrawals of extractions that freed URLs, counted by them: what a probe said before one is not believed after it. Leave it", server_default="0"),
    col("default_model_id", Integer, "The CLIP model whose similarity report.sample shows; null: the oldest that is active", ForeignKey("mill.model.model_id"), nullable=True),
)

outcome = mill(
    "outcome",
    "The closed list of download outcomes.",
    col("code", SmallInteger, "Stored in download.outcome; 0 is success", primary_key=True, autoincrement=False),
    col("name", Text, "The name that views and commands show", unique=True),
    col("retry", Boolean, "Whether the same URL may well end otherwise some hours later"),
)

score_outcome = mill(
    "score_outcome",
    "The closed list of scoring outcomes.",
    col("code", SmallInteger, "Stored in score.outcome; 0 is scored", primary_key=True, autoincrement=False),
    col("name", Text, "The name that views and commands show", unique=True),
)

drop_reason = mill(
    "drop_reason",
    "The closed list of reasons why a link became no pair.",
    col("name", Text, "The reason, as in wat_count.name", primary_key=True),
)

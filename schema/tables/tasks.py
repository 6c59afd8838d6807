"""Tasks, leases, submissions: the small tables, the only ones that change."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pairmill.schema.tables.base import NOW, TIMESTAMP, col, identity, mill, one_of

task = mill(
    "task",
    "The one queue of all kinds of work. A task is coarse: a WAT file, a batch, or an item.",
    identity("task_id", "Key"),
    col("kind", Text, "The kind of work"),
    col("state", Text, "ready, leased, submitted (awaiting acceptance), done, discarded (given up; reason says why) or parked (out of the queue until an admin brings it back)", one_of("state", ("ready", "leased", "submitted", "done", "discarded", "parked")), server_default="ready"),
    col("wat_id", BigInteger, "The WAT file that it is about", ForeignKey("mill.wat_file.wat_id"), nullable=True),
    col("batch_id", BigInteger, "The batch that it is about", ForeignKey("mill.batch.batch_id"), nullable=True),
    col("item_id", BigInteger, "The item that it is about", ForeignKey("mill.item.item_id"), nullable=True),
    col("attempt", SmallInteger, "Which download of the batch, from 1, as in the results: a retry of URLs is a new task with the next number. How often this task failed is attempts", server_default="1"),
    col("model_id", Integer, "The model, of a kind that needs one", ForeignKey("mill.model.model_id"), nullable=True),
    # subject and model follow the kind's declaration by a foreign key, and no list of kinds in a CHECK
    col("subject", Text, "As task_kind.subject", Computed("case when wat_id is not null then 'wat' when batch_id is not null then 'batch' else 'item' end", persisted=True)),
    col("has_model", Boolean, "As task_kind.needs_model", Computed("model_id is not null", persisted=True)),
    col("positions", ARRAY(Integer), "download: the positions (n) to fetch; null for all of the batch", nullable=True),
    col("slot", SmallInteger, "The slot of the thumbnails that the task writes; null before its first claim and once they are gone", nullable=True),
    col("attempts", SmallInteger, "How often a lease of this task failed or was lost, or a submission was rejected; at setting.max_attempts the task is discarded. Which download it is: attempt", server_default="0"),
    col("ready_at", TIMESTAMP, "Earliest time of the next claim", server_default=NOW),
    col("reason", Text, "Reason of the last failure", nullable=True),
    col("changed_at", TIMESTAMP, "When the state changed last", server_default=NOW),
    col("is_replica", Boolean, "download: a replica, which repeats a sample of another task to check it; its results count for no pair", server_default="false"),
    col("avoid_workers", ARRAY(Integer), "download: these workers, and those of their networks, may not claim it; null: all may", nullable=True),
    col("for_model_id", Integer, "download: a backfill, which fetches images again that this model has not scored; the downloads that count go on to count. Null: none", ForeignKey("mill.model.model_id"), nullable=True),
    col("excused", SmallInteger, "Leases that were lost in an outage, and are not counted in attempts", server_default="0"),
    CheckConstraint("num_nonnulls(wat_id, batch_id, item_id) = 1", name="subject"),
    CheckConstraint("for_model_id is null or kind = 'download' and not is_replica", name="backfill"),
    ForeignKeyConstraint(["kind", "subject", "has_model"], ["mill.task_kind.name", "mill.task_kind.subject", "mill.task_kind.needs_model"]),
    # replicas go first: at the end of a crawl's backlog they would come weeks late. Backfills go last: they hold nothing new up
    Index("task_ready_idx", "kind", text("is_replica desc"), text("(for_model_id is not null)"), "task_id", postgresql_where=text("state = 'ready'")),
    Index("task_pending_idx", "kind", postgresql_where=text("state in ('ready', 'leased', 'submitted')")),
    Index("task_stopped_idx", "kind", postgresql_where=text("state in ('discarded', 'parked')")),
    # one task of a kind for each download of a batch, and of a kind that needs a model one for each model
    Index("task_batch_key", "batch_id", "attempt", "kind", "model_id", unique=True, postgresql_nulls_not_distinct=True, postgresql_where=text("batch_id is not null")),
    Index("task_slot_idx", "slot", postgresql_where=text("slot is not null")),
    Index("task_wat_key", "wat_id", "kind", unique=True, postgresql_where=text("wat_id is not null")),
    Index("task_item_idx", "item_id", postgresql_where=text("item_id is not null")),
)

lease = mill(
    "lease",
    "A claimed task. Only the database's clock decides what is late.",
    col("lease_id", BigInteger, "Fencing token, epoch * 2^40 + a sequence: never reused, always rising", primary_key=True, autoincrement=False),
    col("task_id", BigInteger, "The task", ForeignKey("mill.task.task_id")),
    col("instance_id", BigInteger, "The process that holds the lease", ForeignKey("mill.instance.instance_id")),
    col("claimed_at", TIMESTAMP, "When it was claimed", server_default=NOW),
    # a heartbeat changes expires_at and nothing else: in no index, so the update is HOT
    col("expires_at", TIMESTAMP, "The lease is late from then on; a heartbeat moves it"),
    col("deadline", TIMESTAMP, "Latest expires_at, whatever the heartbeats"),
    col("ended_at", TIMESTAMP, "When it ended; null while it is live", nullable=True),
    col("ended_as", Text, "completed, released, failed or expired", one_of("ended_as", ("completed", "released", "failed", "expired")), nullable=True),
    col("worker_id", Integer, "The worker of instance_id; null for leases older than this column", nullable=True),
    col("copied_bytes", BigInteger, "Bytes copied into an inbox under the lease, submitted or not", server_default="0"),
    col("probed", Integer, "extract: URL keys that api.probe_v1 was asked under the lease", server_default="0"),
    col("freed_before", BigInteger, "extract: setting.freed when a probe found a known URL first; null: none did", nullable=True),
    Index("lease_live_idx", "task_id", unique=True, postgresql_where=text("ended_at is null")),
    Index("lease_holder_idx", "instance_id", postgresql_where=text("ended_at is null")),
    Index(None, "instance_id"),
    # by worker: without worker_id each claim read all leases that the fleet had lost within the hour
    Index("lease_unfinished_idx", "worker_id", "ended_at", postgresql_where=text("ended_as <> 'completed'")),
    # room for the first heartbeats of a page's leases; afterwards dead versions make room
    postgresql_with={"fillfactor": "90"},
)

assignment = mill(
    "assignment",
    "The URLs of a download lease that has gold questions among them; without a row its numbers are the batch's.",
    col("lease_id", BigInteger, "The lease", ForeignKey("mill.lease.lease_id"), primary_key=True, autoincrement=False),
    col("positions", ARRAY(Integer), "n of each URL, in the shuffled order in which the worker got them; null where a gold question is. " "Null as a whole until the worker asked for them", nullable=True),
    col("gold_places", ARRAY(Integer), "Places of the gold questions, from 0; answered ones are taken out"),
    col("gold_question_ids", ARRAY(Integer), "The gold questions, parallel to gold_places"),
    col("compared", SmallInteger, "Gold questions whose answers could be judged", server_default="0"),
    col("agreed", SmallInteger, "Of those, gold questions answered right", server_default="0"),
)

submission = mill(
    "submission",
    "Results that a worker handed over under a lease, in one part of possibly several. Counted only once accepted.",
    identity("submission_id", "Key"),
    col("task_id", BigInteger, "The task", ForeignKey("mill.task.task_id")),
    col("lease_id", BigInteger, "The lease that it came in under", ForeignKey("mill.lease.lease_id")),
    col("part", Integer, "Chosen by the worker; the same part again is answered with the same submission"),
    col("worker_id", Integer, "The worker that gets the credit", ForeignKey("mill.worker.worker_id")),
    col("state", Text, "received, accepted or rejected", one_of("state", ("received", "accepted", "rejected")), server_default="received"),
    col("row_count", Integer, "Rows in it: links kept, outcomes, scores"),
    col("reason", Text, "Why it was rejected", nullable=True),
    col("received_at", TIMESTAMP, "When it came in", server_default=NOW),
    col("decided_at", TIMESTAMP, "When it was accepted or rejected", nullable=True),
    col("tag_count", Integer, "score: tags in it", server_default="0"),
    col("success_count", Integer, "download: successes among its rows", server_default="0"),
    UniqueConstraint("lease_id", "part"),
    Index("submission_received_idx", "submission_id", postgresql_where=text("state = 'received'")),
    Index(None, "task_id"),
    Index(None, "worker_id"),
)

submission_extract = mill(
    "submission_extract",
    "The counts of an extraction, until it is accepted; its rows are in inbox.pair.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.submission.submission_id"), primary_key=True, autoincrement=False),
    col("stage", ARRAY(Text), "As wat_count.stage"),
    col("name", ARRAY(Text), "As wat_count.name"),
    col("count", ARRAY(BigInteger), "As wat_count.count"),
    col("link_kind", ARRAY(Text), "As wat_count.link_kind"),
)

submission_download = mill(
    "submission_download",
    "The outcomes of a download submission, packed, until it is accepted: 4 bytes of WAL a URL against 76 for rows.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.submission.submission_id"), primary_key=True, autoincrement=False),
    col("positions", ARRAY(Integer), "n of each row; the arrays below are parallel to it"),
    col("outcome", ARRAY(SmallInteger), "As download.outcome"),
    col("http_status", ARRAY(SmallInteger), "As download.http_status"),
    col("bytes", ARRAY(Integer), "As download.bytes"),
    col("width", ARRAY(Integer), "As download.width"),
    col("height", ARRAY(Integer), "As download.height"),
    col("md5", ARRAY(UUID()), "As download.md5"),
    col("sha1", ARRAY(LargeBinary), "As download.sha1"),
    col("sha256", ARRAY(LargeBinary), "As download.sha256"),
    col("dhash", ARRAY(BigInteger), "As download.dhash"),
    col("pdq", ARRAY(LargeBinary), "As download.pdq"),
    col("refused", ARRAY(Integer), "n of each row of opt_out; the arrays below are parallel to it", nullable=True),
    col("signal", ARRAY(Text), "As opt_out.signal", nullable=True),
    col("value", ARRAY(Text), "As opt_out.value", nullable=True),
    col("source", ARRAY(Text), "As opt_out.source", nullable=True),
    col("read_at", ARRAY(TIMESTAMP), "As opt_out.read_at", nullable=True),
)

submission_item = mill(
    "submission_item",
    "The result of an item's task, until it is accepted.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.submission.submission_id"), primary_key=True, autoincrement=False),
    col("result", JSONB(), "As item_result.result"),
)

withdrawn = mill(
    "withdrawn",
    "Accepted submissions that no longer count.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.submission.submission_id"), primary_key=True, autoincrement=False),
    col("reason", Text, "Why"),
    col("withdrawn_at", TIMESTAMP, "When", server_default=NOW),
)

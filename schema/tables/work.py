"""Sources, workers, tasks, leases, submissions: the small tables, the only ones that change."""

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill, one_of

LINK_KIND = "The kind of links: image, audio, video, document; empty for counts of records"

crawl = mill(
    "crawl",
    "A Common Crawl crawl whose WAT files were added.",
    identity("crawl_id", "Key", Integer),
    col("name", Text, "CC-MAIN-YYYY-WW", unique=True),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
)

wat_file = mill(
    "wat_file",
    "A WAT file: the unit of extraction. Its state is its newest task's.",
    identity("wat_id", "Key"),
    col(
        "crawl_id",
        Integer,
        "The crawl that it belongs to; null for a file added alone",
        ForeignKey("mill.crawl.crawl_id"),
        nullable=True,
    ),
    col(
        "location",
        Text,
        "A path, or an http(s) or s3 URL, as the extract worker opens it",
        unique=True,
    ),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col(
        "link_kinds",
        ARRAY(Text),
        "Which kinds of links are extracted: image, audio, video, document",
        server_default="{image}",
    ),
)

wat_count = mill(
    "wat_count",
    "What an accepted extraction counted.",
    col("submission_id", BigInteger, "The extraction"),
    col("wat_id", BigInteger, "The WAT file"),
    col("stage", Text, "records, links, bad_record, ended_early, dropped, duplicate or pair"),
    col(
        "name",
        Text,
        "Within the stage: a drop reason, a kind of bad record, a language; empty where there is one count",
    ),
    col("count", BigInteger, "How many"),
    col("link_kind", Text, LINK_KIND, server_default=""),
    PrimaryKeyConstraint("submission_id", "link_kind", "stage", "name"),
    Index(None, "wat_id"),
)

crawl_count = mill(
    "crawl_count",
    "The sums of wat_count over a crawl, kept at every acceptance and withdrawal.",
    col("crawl_id", Integer, "The crawl; 0 for files that were added alone"),
    col("link_kind", Text, LINK_KIND),
    col("stage", Text, "As wat_count.stage, and files: those that were extracted"),
    col("name", Text, "As wat_count.name; of ended_early only the reason"),
    col("count", BigInteger, "How many"),
    PrimaryKeyConstraint("crawl_id", "link_kind", "stage", "name"),
    # count is in no index, so the updates are HOT
    postgresql_with={"fillfactor": "50"},
)

worker_kind = mill(
    "worker_kind",
    "The kinds of logins that workers have; the members of a group role each.",
    col("name", Text, "Key; the group role is <database>_<name>", primary_key=True),
)

task_kind = mill(
    "task_kind",
    "The kinds of work, as schema/kinds.py declares them.",
    col("name", Text, "Key; its own functions are mill.<name>_payload and so on", primary_key=True),
    col(
        "subject",
        Text,
        "What a task is about: wat, batch or item",
        one_of("subject", ("wat", "batch", "item")),
    ),
    col("needs_model", Boolean, "Whether a task names a model, and is claimed by its digest"),
    col("upstream", ARRAY(Text), "Kinds whose unfinished tasks may yet lead to tasks of this one"),
    col(
        "is_checked",
        Boolean,
        "Whether samples of what unproven workers submit are repeated by others",
    ),
    col(
        "writes_thumbnails",
        Boolean,
        "Whether a task is given a slot of the ring of thumbnails when it is claimed",
    ),
    col("reads_thumbnails", Boolean, "Whether a slot is kept until its tasks are done"),
    col("lease_seconds", Integer, "As setting.lease_seconds; null: as there", nullable=True),
    col(
        "lease_max_seconds", Integer, "As setting.lease_max_seconds; null: as there", nullable=True
    ),
    col(
        "worker_kind",
        Text,
        "The kind of login that may claim it",
        ForeignKey("mill.worker_kind.name"),
    ),
    UniqueConstraint("name", "subject", "needs_model"),
)

worker = mill(
    "worker",
    "A worker's login. The login name is random, because pg_roles is public; the name is here.",
    identity("worker_id", "Key", Integer),
    col("login", Name(), "The PostgreSQL role that it logs in as", unique=True),
    col("name", Text, "What people call it", unique=True),
    col(
        "kind",
        Text,
        "What it may claim: tasks whose task_kind.worker_kind this is",
        ForeignKey("mill.worker_kind.name"),
    ),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("disabled_at", TIMESTAMP, "When it was disabled; null while it may work", nullable=True),
    col(
        "proven_at",
        TIMESTAMP,
        "Since when others rely on what it says a host allows; null while they do not",
        nullable=True,
    ),
    col(
        "network",
        Text,
        "Where it connects from, in the admin's words; two networks must find a link dead",
        nullable=True,
    ),
    col(
        "streak",
        Integer,
        "Checks in a row that agreed with its downloads; null: an admin vouches, it is not checked",
        nullable=True,
        server_default="0",
    ),
    col(
        "agreement",
        REAL,
        "Share of its checked downloads that others found alike: a moving average, the last check by 0.3",
        server_default="1",
    ),
    col(
        "stopped_because",
        Text,
        "Why it was disabled by the trust check and not by an admin",
        nullable=True,
    ),
)

researcher = mill(
    "researcher",
    "A researcher's login, which reads the views in report and nothing else.",
    col("login", Name(), "The PostgreSQL role that they log in as", primary_key=True),
    col("name", Text, "What people call them", unique=True),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
)

instance = mill(
    "instance",
    "A process of a worker, or several that said hello before any of them had claimed. Leases belong to it.",
    identity("instance_id", "Key"),
    col("worker_id", Integer, "Whose process it is", ForeignKey("mill.worker.worker_id")),
    col("version", Text, "The version of Pairmill that it said it runs"),
    col("protocol", Integer, "The protocol that it said it speaks"),
    col("started_at", TIMESTAMP, "When it said hello", server_default=NOW),
    Index(None, "worker_id"),
)

MODEL_KINDS = ("clip", "head", "zero-shot", "pixels")

model = mill(
    "model",
    "A model that scores pairs, or a tagger that says more of them in the same pass.",
    identity("model_id", "Key", Integer),
    col("name", Text, "open_clip's model name, the folder of a model, or a tagger's name"),
    col("pretrained", Text, "open_clip's tag or a checkpoint's path; empty where name says it all"),
    col("digest", Text, "sha256 of the weights, hexadecimal", unique=True),
    col("dims", Integer, "Length of an embedding; of a tagger of pixels 0"),
    col("active_since", TIMESTAMP, "New batches are scored by it since then", server_default=NOW),
    col(
        "kind",
        Text,
        "clip: image and text to embeddings; head: an image embedding to a number; zero-shot: an image "
        "embedding to one of labels; pixels: a thumbnail to a number",
        one_of("kind", MODEL_KINDS),
        server_default="clip",
    ),
    col(
        "base_model_id",
        Integer,
        "A tagger's clip model: its embeddings are read, and in its pass the tagger is computed",
        ForeignKey("mill.model.model_id"),
        nullable=True,
    ),
    col("labels", ARRAY(Text), "zero-shot: names of the categories, in order", nullable=True),
    col(
        "revision",
        Text,
        "Which version of the weights, in their maker's words",
        server_default="",
    ),
    col("licence", Text, "Of the weights; empty where nobody said", server_default=""),
    col("metrics", JSONB(), "What was measured of it on held-out data", server_default="{}"),
    col(
        "weights",
        LargeBinary,
        "head, zero-shot: the safetensors file, so that whoever scores has it; null: the worker brings them",
        nullable=True,
    ),
    col(
        "retired_at",
        TIMESTAMP,
        "When it was retired: nothing is scored by it any more, what was stays; null while it is active",
        nullable=True,
    ),
    CheckConstraint("(kind = 'clip') = (base_model_id is null)", name="base"),
    CheckConstraint("(kind in ('head', 'zero-shot')) = (weights is not null)", name="weights"),
    CheckConstraint("(kind = 'zero-shot') = (labels is not null)", name="labels"),
    Index("model_tagger_name_key", "name", unique=True, postgresql_where=text("kind <> 'clip'")),
)

item = mill(
    "item",
    "What a task is about that is neither a WAT file nor a batch: whatever its kind's spec says.",
    identity("item_id", "Key"),
    col("kind", Text, "The kind of work that it is for", ForeignKey("mill.task_kind.name")),
    col("spec", JSONB(), "What is to be done, in the words of its kind"),
    col("digest", LargeBinary, "sha256 of the spec's text: the same item is not added twice"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    UniqueConstraint("kind", "digest"),
)

item_result = mill(
    "item_result",
    "What an item's task gave. Only inserted into; counts unless its submission is withdrawn.",
    col("item_id", BigInteger, "The item", ForeignKey("mill.item.item_id")),
    col("submission_id", BigInteger, "The submission that it came with"),
    col("result", JSONB(), "What was found, in the words of its kind"),
    PrimaryKeyConstraint("item_id", "submission_id"),
)

batch = mill(
    "batch",
    "Up to batch_size pairs: the unit of download and scoring.",
    col(
        "batch_id", BigInteger, "Key", Identity(always=False, minvalue=0, start=0), primary_key=True
    ),
    col("bucket", SmallInteger, "The share of new pairs that it is dealt while it is open"),
    col("pair_count", Integer, "Pairs in it; the next pair's n", server_default="0"),
    col("opened_at", TIMESTAMP, "When it was opened", server_default=NOW),
    col(
        "closed_at",
        TIMESTAMP,
        "When its download task was made; null while it is open",
        nullable=True,
    ),
    col(
        "link_kind",
        Text,
        "The kind of links that it holds; image is the one that is downloaded",
        server_default="image",
    ),
    Index(
        "batch_open_idx",
        "link_kind",
        "bucket",
        unique=True,
        postgresql_where=text("closed_at is null"),
    ),
)

task = mill(
    "task",
    "The one queue, of every kind of work. A task is coarse: a WAT file, a batch, or an item.",
    identity("task_id", "Key"),
    col("kind", Text, "The kind of work"),
    col(
        "state",
        Text,
        "ready, leased, submitted (awaiting acceptance), done or parked (gave up; reason says why)",
        one_of("state", ("ready", "leased", "submitted", "done", "parked")),
        server_default="ready",
    ),
    col(
        "wat_id",
        BigInteger,
        "The WAT file that it is about",
        ForeignKey("mill.wat_file.wat_id"),
        nullable=True,
    ),
    col(
        "batch_id",
        BigInteger,
        "The batch that it is about",
        ForeignKey("mill.batch.batch_id"),
        nullable=True,
    ),
    col(
        "item_id",
        BigInteger,
        "The item that it is about",
        ForeignKey("mill.item.item_id"),
        nullable=True,
    ),
    col(
        "attempt",
        SmallInteger,
        "Of a batch: 1 for its first download, and so on",
        server_default="1",
    ),
    col(
        "model_id",
        Integer,
        "The model, of a kind that needs one",
        ForeignKey("mill.model.model_id"),
        nullable=True,
    ),
    # what the kind declares of its tasks is a foreign key, and no list of kinds in a CHECK
    col(
        "subject",
        Text,
        "As task_kind.subject",
        Computed(
            "case when wat_id is not null then 'wat' when batch_id is not null then 'batch' else 'item' end",
            persisted=True,
        ),
    ),
    col(
        "has_model",
        Boolean,
        "As task_kind.needs_model",
        Computed("model_id is not null", persisted=True),
    ),
    col(
        "positions",
        ARRAY(Integer),
        "download: the positions (n) to fetch; null for all of the batch",
        nullable=True,
    ),
    col(
        "slot",
        SmallInteger,
        "Where the thumbnails lie that it writes; null before its first claim and once they are gone",
        nullable=True,
    ),
    col("tries", SmallInteger, "Leases that failed or were lost", server_default="0"),
    col("ready_at", TIMESTAMP, "Not claimed before then", server_default=NOW),
    col("reason", Text, "Why it failed last", nullable=True),
    col("changed_at", TIMESTAMP, "When the state changed last", server_default=NOW),
    col(
        "is_check",
        Boolean,
        "download: repeats a sample of another's; nothing that it gives counts",
        server_default="false",
    ),
    col(
        "avoid_workers",
        ARRAY(Integer),
        "download: these workers, and those of their networks, may not claim it; null: all may",
        nullable=True,
    ),
    col(
        "excused",
        SmallInteger,
        "Leases that were lost in an outage and counted no try",
        server_default="0",
    ),
    CheckConstraint("num_nonnulls(wat_id, batch_id, item_id) = 1", name="subject"),
    ForeignKeyConstraint(
        ["kind", "subject", "has_model"],
        ["mill.task_kind.name", "mill.task_kind.subject", "mill.task_kind.needs_model"],
    ),
    # checks go first: one at the end of a crawl's backlog would come weeks late
    Index(
        "task_ready_idx",
        "kind",
        text("is_check desc"),
        "task_id",
        postgresql_where=text("state = 'ready'"),
    ),
    Index(
        "task_pending_idx",
        "kind",
        postgresql_where=text("state in ('ready', 'leased', 'submitted')"),
    ),
    # one task of a kind for each download of a batch, and of a kind that needs a model one for each model
    Index(
        "task_batch_key",
        "batch_id",
        "attempt",
        "kind",
        "model_id",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=text("batch_id is not null"),
    ),
    Index("task_slot_idx", "slot", postgresql_where=text("slot is not null")),
    Index(
        "task_wat_key", "wat_id", "kind", unique=True, postgresql_where=text("wat_id is not null")
    ),
    Index("task_item_idx", "item_id", postgresql_where=text("item_id is not null")),
)

lease = mill(
    "lease",
    "A claimed task. Only the database's clock decides what is late.",
    col(
        "lease_id",
        BigInteger,
        "Fencing token, epoch * 2^40 + a sequence: never reused, always rising",
        primary_key=True,
        autoincrement=False,
    ),
    col("task_id", BigInteger, "What was claimed", ForeignKey("mill.task.task_id")),
    col(
        "instance_id", BigInteger, "Which process holds it", ForeignKey("mill.instance.instance_id")
    ),
    col("claimed_at", TIMESTAMP, "When it was claimed", server_default=NOW),
    # a heartbeat changes expires_at and nothing else: in no index, so the update is HOT
    col("expires_at", TIMESTAMP, "Late from then on; a heartbeat moves it"),
    col("deadline", TIMESTAMP, "No heartbeat moves expires_at beyond this"),
    col("ended_at", TIMESTAMP, "When it ended; null while it is live", nullable=True),
    col(
        "ended_as",
        Text,
        "completed, released, failed or expired",
        one_of("ended_as", ("completed", "released", "failed", "expired")),
        nullable=True,
    ),
    col(
        "worker_id",
        Integer,
        "The worker of instance_id; null for leases from before it was noted",
        nullable=True,
    ),
    col(
        "copied_bytes",
        BigInteger,
        "What was copied into an inbox under it; whether it was submitted or not",
        server_default="0",
    ),
    Index("lease_live_idx", "task_id", unique=True, postgresql_where=text("ended_at is null")),
    Index("lease_holder_idx", "instance_id", postgresql_where=text("ended_at is null")),
    Index(None, "instance_id"),
    # of the worker's own: every claim of anybody read all that the fleet had lost within the hour
    Index(
        "lease_unfinished_idx",
        "worker_id",
        "ended_at",
        postgresql_where=text("ended_as <> 'completed'"),
    ),
    # room for the first heartbeats of a page's leases; afterwards the dead make room
    postgresql_with={"fillfactor": "90"},
)

assignment = mill(
    "assignment",
    "What a download lease was handed, where canaries are among it; without a row its numbers are the batch's.",
    col(
        "lease_id",
        BigInteger,
        "The lease",
        ForeignKey("mill.lease.lease_id"),
        primary_key=True,
        autoincrement=False,
    ),
    col(
        "positions",
        ARRAY(Integer),
        "n of each URL, in the shuffled order in which the worker got them; null where a canary is. "
        "Null as a whole until it asked for them",
        nullable=True,
    ),
    col("canary_places", ARRAY(Integer), "Which places, from 0, hold canaries; answered ones go"),
    col("canary_ids", ARRAY(Integer), "The canaries, parallel to canary_places"),
    col("compared", SmallInteger, "Canaries answered that could be compared", server_default="0"),
    col("agreed", SmallInteger, "Of those, the right ones", server_default="0"),
)

canary = mill(
    "canary",
    "A URL with a known answer, given to workers among their own.",
    identity("canary_id", "Key", Integer),
    col("url", Text, "The URL", unique=True),
    col(
        "sha256",
        LargeBinary,
        "sha256 of its image, 32 bytes; null: there is no image",
        nullable=True,
    ),
    col("dhash", BigInteger, "As download.dhash, where it is known", nullable=True),
    col(
        "by_admin",
        Boolean,
        "An admin gave it; else it was drawn from what a proven worker downloaded",
    ),
    col("answers", Integer, "How often it was answered", server_default="0"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
)

recheck = mill(
    "recheck",
    "A check of what a worker downloaded: by another's repeat of a sample, or by canaries.",
    identity("recheck_id", "Key"),
    col("worker_id", Integer, "Who is checked", ForeignKey("mill.worker.worker_id")),
    col(
        "task_id",
        BigInteger,
        "The task whose downloads are checked",
        ForeignKey("mill.task.task_id"),
    ),
    col(
        "repeat_task_id",
        BigInteger,
        "The task that repeats a sample; null for canaries",
        ForeignKey("mill.task.task_id"),
        nullable=True,
    ),
    col(
        "second_task_id",
        BigInteger,
        "The task that repeats it once more, since the first did not agree",
        ForeignKey("mill.task.task_id"),
        nullable=True,
    ),
    col(
        "state",
        Text,
        "open, disputed (a third worker decides), agreed, failed, or void (nothing could be told)",
        one_of("state", ("open", "disputed", "agreed", "failed", "void")),
        server_default="open",
    ),
    col("compared", Integer, "Positions that could be compared", server_default="0"),
    col("agreed", Integer, "Of those, positions that ended alike", server_default="0"),
    col("opened_at", TIMESTAMP, "When it was drawn", server_default=NOW),
    col("decided_at", TIMESTAMP, "When it was decided", nullable=True),
    Index("recheck_open_idx", "recheck_id", postgresql_where=text("state in ('open', 'disputed')")),
    Index("recheck_void_idx", "decided_at", postgresql_where=text("state = 'void'")),
    Index(None, "worker_id"),
)

submission = mill(
    "submission",
    "What a worker handed over under a lease, in one part of possibly several. Counted only once accepted.",
    identity("submission_id", "Key"),
    col("task_id", BigInteger, "The task", ForeignKey("mill.task.task_id")),
    col(
        "lease_id", BigInteger, "The lease that it came in under", ForeignKey("mill.lease.lease_id")
    ),
    col(
        "part",
        Integer,
        "Chosen by the worker; the same part again is answered with the same submission",
    ),
    col("worker_id", Integer, "Who gets the credit", ForeignKey("mill.worker.worker_id")),
    col(
        "state",
        Text,
        "received, accepted or rejected",
        one_of("state", ("received", "accepted", "rejected")),
        server_default="received",
    ),
    col("row_count", Integer, "Rows in it: links kept, outcomes, scores"),
    col("reason", Text, "Why it was rejected", nullable=True),
    col("received_at", TIMESTAMP, "When it came in", server_default=NOW),
    col("decided_at", TIMESTAMP, "When it was accepted or rejected", nullable=True),
    col("tag_count", Integer, "score: tags in it", server_default="0"),
    UniqueConstraint("lease_id", "part"),
    Index("submission_received_idx", "submission_id", postgresql_where=text("state = 'received'")),
    Index(None, "task_id"),
    Index(None, "worker_id"),
)

submission_extract = mill(
    "submission_extract",
    "What an extraction counted, until it is accepted; its rows are in inbox.pair.",
    col(
        "submission_id",
        BigInteger,
        "The submission",
        ForeignKey("mill.submission.submission_id"),
        primary_key=True,
        autoincrement=False,
    ),
    col("stage", ARRAY(Text), "As wat_count.stage"),
    col("name", ARRAY(Text), "As wat_count.name"),
    col("count", ARRAY(BigInteger), "As wat_count.count"),
    col("link_kind", ARRAY(Text), "As wat_count.link_kind"),
)

submission_download = mill(
    "submission_download",
    "The outcomes of a download submission, packed, until it is accepted: 4 bytes of WAL a URL against 76 for rows.",
    col(
        "submission_id",
        BigInteger,
        "The submission",
        ForeignKey("mill.submission.submission_id"),
        primary_key=True,
        autoincrement=False,
    ),
    col("positions", ARRAY(Integer), "n of each row; the arrays below are parallel to it"),
    col("outcome", ARRAY(SmallInteger), "As download.outcome"),
    col("http_status", ARRAY(SmallInteger), "As download.http_status"),
    col("bytes", ARRAY(Integer), "As download.bytes"),
    col("width", ARRAY(Integer), "As download.width"),
    col("height", ARRAY(Integer), "As download.height"),
    col("md5", ARRAY(UUID()), "As download.md5"),
    col("sha256", ARRAY(LargeBinary), "As download.sha256"),
    col("dhash", ARRAY(BigInteger), "As download.dhash"),
    col(
        "refused",
        ARRAY(Integer),
        "n of each row of opt_out; the arrays below are parallel to it",
        nullable=True,
    ),
    col("signal", ARRAY(Text), "As opt_out.signal", nullable=True),
    col("value", ARRAY(Text), "As opt_out.value", nullable=True),
    col("source", ARRAY(Text), "As opt_out.source", nullable=True),
    col("read_at", ARRAY(TIMESTAMP), "As opt_out.read_at", nullable=True),
)

submission_item = mill(
    "submission_item",
    "The result of an item's task, until it is accepted.",
    col(
        "submission_id",
        BigInteger,
        "The submission",
        ForeignKey("mill.submission.submission_id"),
        primary_key=True,
        autoincrement=False,
    ),
    col("result", JSONB(), "As item_result.result"),
)

withdrawn = mill(
    "withdrawn",
    "Accepted submissions that no longer count.",
    col(
        "submission_id",
        BigInteger,
        "The submission",
        ForeignKey("mill.submission.submission_id"),
        primary_key=True,
        autoincrement=False,
    ),
    col("reason", Text, "Why"),
    col("withdrawn_at", TIMESTAMP, "When", server_default=NOW),
)

"""Kinds of work, workers, researchers, pages' logins, models, gold questions and replications."""

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pairmill.schema.kinds import PAGES
from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill, one_of

worker_kind = mill(
    "worker_kind",
    "The kinds of workers' logins, each with a group role.",
    col("name", Text, "Key; the group role is <database>_<name>", primary_key=True),
)

task_kind = mill(
    "task_kind",
    "The kinds of work, as schema/kinds.py declares them.",
    col("name", Text, "Key; the kind's hooks are mill.<name>_payload and so on", primary_key=True),
    col("subject", Text, "The subject of its tasks: wat, batch or item", one_of("subject", ("wat", "batch", "item"))),
    col("needs_model", Boolean, "Whether a task names a model, and is claimed by its digest"),
    col("upstream", ARRAY(Text), "Kinds whose unfinished tasks may yet lead to tasks of this one"),
    col("is_replicated", Boolean, "Whether samples of unproven workers' results are repeated by other workers"),
    col("writes_thumbnails", Boolean, "Whether a task is given a slot of the ring of thumbnails when it is claimed"),
    col("reads_thumbnails", Boolean, "Whether a slot is kept until its tasks are done"),
    col("lease_seconds", Integer, "As setting.lease_seconds; null: as there", nullable=True),
    col("lease_max_seconds", Integer, "As setting.lease_max_seconds; null: as there", nullable=True),
    col("worker_kind", Text, "The kind of login that may claim it", ForeignKey("mill.worker_kind.name")),
    UniqueConstraint("name", "subject", "needs_model"),
)

worker = mill(
    "worker",
    "A worker's login. The login name is random, because pg_roles is public; the name is here.",
    identity("worker_id", "Key", Integer),
    col("login", Name(), "The PostgreSQL role that it logs in as", unique=True),
    col("name", Text, "Display name", unique=True),
    col("kind", Text, "Kind of login: the worker claims tasks whose task_kind.worker_kind is the same", ForeignKey("mill.worker_kind.name")),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("disabled_at", TIMESTAMP, "When it was disabled; null while it may work", nullable=True),
    col("proven_at", TIMESTAMP, "When the worker was proven: other workers rely on the robots.txt that it read; null while it is not", nullable=True),
    col("network", Text, "The network that it connects from, in the admin's words; two networks must find a link dead", nullable=True),
    col("streak", Integer, "Replications in a row that agreed with its downloads; null: an admin vouches for it, and it is not checked", nullable=True, server_default="0"),
    col("agreement", REAL, "Share of its replicated downloads that others found alike: a moving average, the last replication by 0.3", server_default="1"),
    col("stopped_because", Text, "Reason, if replication stopped it and not an admin; else null", nullable=True),
    col("disabled_because", Text, "The admin's reason, which the worker is told; null where none was given, or replication stopped it", nullable=True),
)

researcher = mill(
    "researcher",
    "A researcher's login, which reads the views in report and nothing else.",
    col("login", Name(), "The PostgreSQL role that they log in as", primary_key=True),
    col("name", Text, "Display name", unique=True),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("disabled_at", TIMESTAMP, "When it was disabled; null while it may log in", nullable=True),
    col("disabled_because", Text, "The admin's reason; null where none was given", nullable=True),
)

page_login = mill(
    "page_login",
    "The login of a process that serves pages, with the rights of its page's group role and no others.",
    col("login", Name(), "The PostgreSQL role that it logs in as", primary_key=True),
    col("page", Text, "The page: live, explore, or viewer, the admin's page for who may only look", one_of("page", PAGES)),
    col("name", Text, "What the admin calls it", unique=True),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
)

instance = mill(
    "instance",
    "A process of a worker, or several that registered before any of them had claimed. Leases belong to it.",
    identity("instance_id", "Key"),
    col("worker_id", Integer, "The worker of the process", ForeignKey("mill.worker.worker_id")),
    col("version", Text, "Version of Pairmill, as the process says"),
    col("protocol", Integer, "Protocol of its calls, as the process says"),
    col("started_at", TIMESTAMP, "When it registered", server_default=NOW),
    # in no index, so the update is HOT
    col("last_seen_at", TIMESTAMP, "When it registered, claimed, beat or swept last; up to half a minute late", server_default=NOW),
    Index(None, "worker_id"),
)

MODEL_KINDS = ("clip", "head", "zero-shot", "pixels")

model = mill(
    "model",
    "A CLIP model that scores pairs, or a tagger that gives a value for each image.",
    identity("model_id", "Key", Integer),
    col("name", Text, "open_clip's model name, the folder of a model, or a tagger's name"),
    col("pretrained", Text, "open_clip's tag or a checkpoint's path; empty where name says it all"),
    col("digest", Text, "sha256 of the weights, hexadecimal", unique=True),
    col("dims", Integer, "Length of an embedding; of a tagger of pixels 0"),
    col("active_since", TIMESTAMP, "New batches are scored by it since then", server_default=NOW),
    col("kind", Text, "clip: image and text to embeddings; head: an image embedding to a number; zero-shot: an image embedding to one of labels; pixels: a thumbnail to a number", one_of("kind", MODEL_KINDS), server_default="clip"),
    col("base_model_id", Integer, "A tagger's CLIP model: the tagger reads its embeddings, or is computed in its pass", ForeignKey("mill.model.model_id"), nullable=True),
    col("labels", ARRAY(Text), "zero-shot: names of the categories, in order", nullable=True),
    col("revision", Text, "Version of the weights, in their maker's words", server_default=""),
    col("licence", Text, "Licence of the weights; empty where none was given", server_default=""),
    col("metrics", JSONB(), "Metrics on held-out data", server_default="{}"),
    col("weights", LargeBinary, "head, zero-shot: the safetensors file, so that every scorer has it; null: the worker brings the weights", nullable=True),
    col("retired_at", TIMESTAMP, "When it was retired: it scores nothing more, its results stay; null while it is active", nullable=True),
    CheckConstraint("(kind = 'clip') = (base_model_id is null)", name="base"),
    CheckConstraint("(kind in ('head', 'zero-shot')) = (weights is not null)", name="weights"),
    CheckConstraint("(kind = 'zero-shot') = (labels is not null)", name="labels"),
    Index("model_tagger_name_key", "name", unique=True, postgresql_where=text("kind <> 'clip'")),
)

gold_question = mill(
    "gold_question",
    "A URL with a known answer, hidden among the URLs of a download lease.",
    identity("gold_question_id", "Key", Integer),
    col("url", Text, "The URL", unique=True),
    col("sha256", LargeBinary, "sha256 of its image, 32 bytes; null: there is no image", nullable=True),
    col("dhash", BigInteger, "As download.dhash, where it is known", nullable=True),
    col("by_admin", Boolean, "Whether an admin added it; else it was drawn from the downloads of a worker that an admin vouches for"),
    col("answers", Integer, "Number of answers that workers gave", server_default="0"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
)

replication = mill(
    "replication",
    "A check of a worker's download task: by another worker's repeat of a sample (a replica), or by gold questions.",
    identity("replication_id", "Key"),
    col("worker_id", Integer, "The checked worker", ForeignKey("mill.worker.worker_id")),
    col("task_id", BigInteger, "The checked task", ForeignKey("mill.task.task_id")),
    col("replica_task_id", BigInteger, "The replica: a task that repeats a sample; null for gold questions", ForeignKey("mill.task.task_id"), nullable=True),
    col("second_replica_task_id", BigInteger, "The second replica, where the first did not agree", ForeignKey("mill.task.task_id"), nullable=True),
    col("state", Text, "open, disputed (a third worker decides), agreed, failed, or void (nothing could be told)", one_of("state", ("open", "disputed", "agreed", "failed", "void")), server_default="open"),
    col("compared", Integer, "Positions that could be compared", server_default="0"),
    col("agreed", Integer, "Of those, positions that ended alike", server_default="0"),
    col("opened_at", TIMESTAMP, "When it was drawn", server_default=NOW),
    col("decided_at", TIMESTAMP, "When it was decided", nullable=True),
    Index("replication_open_idx", "replication_id", postgresql_where=text("state in ('open', 'disputed')")),
    Index("replication_void_idx", "decided_at", postgresql_where=text("state = 'void'")),
    Index(None, "worker_id"),
)

ended_session = mill(
    "ended_session",
    "Sessions of workers that the watchdog has ended, of the last 30 days, 10,000 at most. No foreign key: behind the session that is to be ended a migration may wait for mill.worker.",
    identity("ended_session_id", "Key"),
    col("at", TIMESTAMP, "When it was ended", server_default=NOW),
    col("login", Text, "Its login"),
    col("state", Text, "As pg_stat_activity.state: idle in transaction, active, idle; empty where it was not known"),
    col("seconds", Double, "So long its transaction was open; of a session without one, the session"),
    Index(None, "at"),
)

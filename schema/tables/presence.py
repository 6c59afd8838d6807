"""Which models the workers of today have."""

from sqlalchemy import ForeignKey, Integer, PrimaryKeyConstraint

from pairmill.schema.tables.base import NOW, TIMESTAMP, col, mill

presence = mill(
    "presence",
    "When a worker last asked for tasks of a model: it has the model's weights. One row a worker and model.",
    col("worker_id", Integer, "The worker", ForeignKey("mill.worker.worker_id")),
    col("model_id", Integer, "The model or tagger", ForeignKey("mill.model.model_id")),
    col("asked_at", TIMESTAMP, "When it asked, up to a minute late", server_default=NOW),
    PrimaryKeyConstraint("worker_id", "model_id"),
    # asked_at is in no index, and a page has room for the next version: the updates are HOT, and leave nothing to vacuum
    postgresql_with={"fillfactor": "50"},
)

"""Counts by day: what was accepted, and what was withdrawn of it later."""

from sqlalchemy import BigInteger, Date, ForeignKey, Integer, PrimaryKeyConstraint, Text

from pairmill.schema.tables.base import col, mill

STAGE = "files, records, links, bad_record, ended_early, dropped, duplicate, pair, opted_out (by its page), download, refetch (for a model that came later), opt_out (by its site), score; of other kinds of work the kind's name"
NAME = "Within the stage: drop reason, language, outcome, signal; else empty"
MODEL_ID = "score: the model; else 0"
LINK_KIND = "Of the stages of extraction: image, audio, video or document; else empty"

daily_count = mill(
    "daily_count",
    "What was accepted on each day, kept since the beginning: a handful of rows is counted up at each acceptance.",
    col("day", Date, "The day, in UTC"),
    col("stage", Text, STAGE),
    col("link_kind", Text, LINK_KIND),
    col("model_id", Integer, MODEL_ID),
    col("name", Text, NAME),
    col("count", BigInteger, "How many"),
    PrimaryKeyConstraint("day", "stage", "link_kind", "model_id", "name"),
    # count is in no index, so the updates are HOT
    postgresql_with={"fillfactor": "50"},
)

withdrawn_count = mill(
    "withdrawn_count",
    "What each withdrawn submission had counted in daily_count; its day is that of the withdrawal.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.withdrawn.submission_id")),
    col("stage", Text, "As daily_count.stage"),
    col("link_kind", Text, "As daily_count.link_kind"),
    col("model_id", Integer, "As daily_count.model_id"),
    col("name", Text, "As daily_count.name"),
    col("count", BigInteger, "How many"),
    PrimaryKeyConstraint("submission_id", "stage", "link_kind", "model_id", "name"),
)

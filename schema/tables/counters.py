"""Counters of the funnel and of tasks that are done: what `pairmill status` reads in place of the rows."""

from sqlalchemy import ARRAY, BigInteger, Integer, PrimaryKeyConstraint, SmallInteger, Text

from pairmill.schema.tables.base import col, mill

LANGUAGE = "The pair's language, nolang for none"
OUTCOME = "As download.outcome, of a model as score.outcome; -1: the pair itself, whatever became of it"
PARALLEL = "; the arrays below are parallel to it"
MODEL = "A model, for its scores; 0 for pairs and downloads"
CRAWL = "extract: the crawl, 0 for files that were added alone, -1 for files that were taken back; of other kinds 0"

batch_count = mill(
    "batch_count",
    "The pairs of a batch that count, by language and outcome: what counting the rows would give, kept at each acceptance and withdrawal.",
    col("batch_id", BigInteger, "The batch"),
    col("model_id", Integer, MODEL),
    col("attempt", SmallInteger, "The download attempt that counts for these pairs; 0 for the pairs themselves: that row's lock is held by whoever counts the batch"),
    col("pairs", Integer, "The sum of count"),
    col("successes", Integer, "The sum of count where outcome is 0"),
    col("language", ARRAY(Text), LANGUAGE + PARALLEL, info={"plain": False}),  # as mill.pair has it
    col("outcome", ARRAY(SmallInteger), OUTCOME),
    col("count", ARRAY(Integer), "How many pairs"),
    PrimaryKeyConstraint("batch_id", "model_id", "attempt"),
    # some 2 KB a row, of which only what no index has is changed: a second version fits beside it
    postgresql_with={"fillfactor": "50"},
)

funnel_count = mill(
    "funnel_count",
    "The sums of batch_count over all batches, but for those of mill.funnel_change.",
    col("link_kind", Text, "image, audio, video or document"),
    col("model_id", Integer, MODEL),
    col("language", Text, LANGUAGE),
    col("outcome", SmallInteger, OUTCOME),
    col("count", BigInteger, "How many pairs"),
    PrimaryKeyConstraint("link_kind", "model_id", "language", "outcome"),
    # count is in no index, so the updates are HOT
    postgresql_with={"fillfactor": "50"},
)

funnel_change = mill(
    "funnel_change",
    "Changes that are not yet in funnel_count. Only inserted into, so that no acceptance or withdrawal waits for another; the steward adds them up.",
    col("link_kind", Text, "As funnel_count.link_kind"),
    col("model_id", Integer, MODEL),
    col("language", ARRAY(Text), LANGUAGE + PARALLEL, info={"plain": False}),  # as mill.pair has it
    col("outcome", ARRAY(SmallInteger), OUTCOME),
    col("count", ARRAY(Integer), "By how many pairs the count changes"),
)

done_count = mill(
    "done_count",
    "Tasks that are done, but for those of mill.done_change.",
    col("kind", Text, "The kind of work"),
    col("crawl_id", Integer, CRAWL),
    col("count", BigInteger, "How many tasks"),
    PrimaryKeyConstraint("kind", "crawl_id"),
    postgresql_with={"fillfactor": "50"},
)

done_change = mill(
    "done_change",
    "Changes that are not yet in done_count. Only inserted into: a worker's open transaction, which may end a task, holds nobody up.",
    col("kind", Text, "The kind of work"),
    col("crawl_id", Integer, CRAWL),
    col("count", Integer, "By how many tasks the count changes"),
)

extraction_batch = mill(
    "extraction_batch",
    "The batches over which the pairs of an extraction were dealt: mill.pair has no index by submission.",
    col("submission_id", BigInteger, "The extraction", primary_key=True, autoincrement=False),
    col("batch_ids", ARRAY(BigInteger), "The batches"),
)

"""Images that were fetched again: a model that came later needs thumbnails that are gone."""

from sqlalchemy import BigInteger, Integer, PrimaryKeyConstraint, SmallInteger

from pairmill.schema.tables.base import col, mill
from pairmill.schema.tables.results import BATCH_ID, BY_BATCH, N

refetch = mill(
    "refetch",
    "The outcome of fetching a downloaded image again, in a backfill. Counts for no pair: the download that counted goes on to count.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, "The backfill's download attempt, as task.attempt; its thumbnails are kept under it"),
    col("outcome", SmallInteger, "As outcome.code; 0 is success. An opt-out is a row of download instead, and counts"),
    col("of_attempt", SmallInteger, "The download attempt that counts and gave the same image, so that a score of the new thumbnail is a score of it; null: no image, or another one", nullable=True),
    col("submission_id", BigInteger, "The submission that it came with"),
    PrimaryKeyConstraint("batch_id", "n", "attempt"),
    **BY_BATCH,
)

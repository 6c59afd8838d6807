"""The archive: where the facts of finished partitions are, and the images that are in them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, mill

archive = mill(
    "archive",
    "The generations of each archived partition: the folder of its facts, and what the database said when they were written.",
    col("first_batch", BigInteger, "First batch of the partition"),
    col("generation", Integer, "From 1; the highest is the one that may count"),
    col("last_batch", BigInteger, "Last batch of the partition"),
    col("folder", Text, "Path or URL of the generation's folder"),
    col("state", JSONB(), "As mill.archive_state when the files were written: while that says the same, the files have what the database has"),
    col("removed_pairs", BigInteger, "Pairs of the partition that removals named then: embeddings of those named later are in the files"),
    col("extractions", ARRAY(BigInteger), "The submissions that its pairs came with"),
    col("files", JSONB(), "Name, rows, bytes and sha256 of each file"),
    col("manifest_sha256", LargeBinary, "sha256 of the folder's manifest.json"),
    col("archived_at", TIMESTAMP, "When the files were whole", server_default=NOW),
    col("archived_by", Name(), "The login that wrote them", server_default=text("session_user")),
    col("detached_at", TIMESTAMP, "When the partition's rows were dropped from the database, of the generation that has them now; null: they are here", nullable=True),
    PrimaryKeyConstraint("first_batch", "generation"),
    CheckConstraint("generation > 0 and first_batch <= last_batch", name="range"),
)

image_key = mill(
    "image_key",
    "The index of archived images: finds the samples of a hash without their rows. Several hashes may share a key, so that what it finds is compared.",
    col("key", BigInteger, "The first 8 bytes of the md5, SHA-1 or sha256 of an image's bytes, big-endian, as a signed integer"),
    col("sample_id", BigInteger, "batch_id * 16,384 + n"),
    PrimaryKeyConstraint("key", "sample_id"),
)

withdrawn_detached = mill(
    "withdrawn_detached",
    "The submissions that were withdrawn while their rows were detached: what the withdrawal would have queued is queued when the rows are back.",
    col("submission_id", BigInteger, "The submission", ForeignKey("mill.withdrawn.submission_id"), primary_key=True, autoincrement=False),
)

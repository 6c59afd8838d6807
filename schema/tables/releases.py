"""Records of releases: what each decided of every pair, kept wherever its folder goes."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill

release = mill(
    "release",
    "Releases that were built and recorded; what each decided of every pair is in release_batch.",
    identity("release_id", "Key", Integer),
    col("name", Text, "Name of its recipe"),
    col("version", Integer, "Version of its recipe"),
    col("recipe", JSONB(), "The recipe with every value, overrides applied"),
    col("manifest_sha256", Text, "sha256 of its manifest, hexadecimal: tells its folder from others"),
    col("built_at", TIMESTAMP, "When the build began, whose state of the database it has", server_default=NOW),
    col("built_by", Name(), "The login that built it", server_default=text("session_user")),
    col("candidates", BigInteger, "Pairs that it looked at"),
    col("kept", BigInteger, "Pairs in it"),
    col("excluded", JSONB(), "Pairs left out, by the first reason that held"),
    col("unfinished", JSONB(), "Work that was not done when it was built, by what; {} where all was done"),
    col("words", ARRAY(Text), "What a byte of release_batch.decisions stands for, from 1: kept, then the reasons for which pairs are left out"),
    col("methods", ARRAY(Text), "What found duplicates: release_batch.duplicates has indexes of it, from 0", server_default="{}"),
)

release_batch = mill(
    "release_batch",
    "What a release decided of each pair of a batch.",
    col("batch_id", BigInteger, "The batch"),
    col("release_id", Integer, "The release", ForeignKey("mill.release.release_id", ondelete="CASCADE"), index=True),
    col("decisions", LargeBinary, "A byte for each n: 0 no candidate (withdrawn), else an index into release.words. Pairs that came later are beyond its end"),
    col("duplicates", LargeBinary, "11 bytes, big-endian, for each duplicate, in order of n: n (2), an index of release.methods (1) and the sample_id that stays for it (8; -1: none does). Null: it has none", nullable=True),
    PrimaryKeyConstraint("batch_id", "release_id"),
)

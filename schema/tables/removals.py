"""Removals: URLs, hosts and images that no release may contain, and the pairs that they name."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill

removal = mill(
    "removal",
    "URLs, hosts and images that no release may contain, and no ingest may let in.",
    identity("removal_id", "Key"),
    col("source", Text, "The URL, host or hash: a URL as the extractor writes it, without a fragment; *.example.org for a host with all below it"),
    col("md5", UUID(), "md5 of a URL, or of an image's bytes; matches either", nullable=True),
    col("sha256", LargeBinary, "sha256 of an image's bytes", nullable=True),
    col("reason", Text, "Why, in the admin's words; may be empty"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("host", Text, "A host of URLs, in lower case, as mill.host gives it", nullable=True),
    col("subdomains", Boolean, "Whether the hosts below the host are meant, too", server_default="false"),
    col("spelling_of", BigInteger, "The removal that this one is another spelling of; null: it is what was given", ForeignKey("mill.removal.removal_id", ondelete="CASCADE"), nullable=True),
    col("added_by", Name(), "The login that added it", server_default=text("session_user")),
    col("found_at", TIMESTAMP, "When all the pairs were found that it names; null: the search was interrupted, and the next `removal add` ends it", nullable=True),
    CheckConstraint("num_nonnulls(md5, sha256, host) = 1", name="key"),
    CheckConstraint("host is not null or not subdomains", name="subdomains"),
    # by md5: a URL may be longer than a row of an index
    Index("removal_source_key", text("md5(source)"), "spelling_of", unique=True, postgresql_nulls_not_distinct=True),
    # not unique: a spelling may belong to several URLs, or be given as a hash, too; each removal may be taken back alone
    Index(None, "md5", postgresql_where=text("md5 is not null")),
    Index(None, "sha256", postgresql_where=text("sha256 is not null")),
    Index(None, "host", postgresql_where=text("host is not null")),
    Index(None, "spelling_of", postgresql_where=text("spelling_of is not null")),
)

removed_pair = mill(
    "removed_pair",
    "The pairs that removals name: found once when a removal is added, and at the acceptance of a download that gives the image.",
    col("batch_id", BigInteger, "The batch"),
    col("n", Integer, "Position within the batch, from 0"),
    col("removal_id", BigInteger, "The removal", ForeignKey("mill.removal.removal_id", ondelete="CASCADE")),
    col("submission_id", BigInteger, "The download that gave the image; null where the removal names the URL or its host", nullable=True),
    col("found_at", TIMESTAMP, "When it was found: a scorer that had claimed the batch before still gets its thumbnail", server_default=text("clock_timestamp()")),
    PrimaryKeyConstraint("batch_id", "n", "removal_id"),
    Index(None, "removal_id"),
    Index(None, "submission_id", postgresql_where=text("submission_id is not null")),
)

removal_undone = mill(
    "removal_undone",
    "The removals that were taken back: who did it, when and why.",
    identity("undone_id", "Key"),
    col("removal_id", BigInteger, "The removal's former key"),
    col("source", Text, "As removal.source"),
    col("reason", Text, "As removal.reason"),
    col("added_at", TIMESTAMP, "As removal.added_at"),
    col("added_by", Name(), "As removal.added_by"),
    col("undone_at", TIMESTAMP, "When it was taken back", server_default=NOW),
    col("undone_by", Name(), "The login that took it back", server_default=text("session_user")),
    col("why", Text, "Why it was taken back, in the admin's words; may be empty"),
    col("pairs", BigInteger, "Pairs that it named, and that no other removal names; of several that are taken back at once, a pair counts for the oldest"),
)

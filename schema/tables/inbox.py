"""Inboxes: rows that trusted workers COPY in, until they are accepted."""

from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from pairmill.schema.tables.base import TIMESTAMP, Name, col, metadata, open_columns, plain

LEASE = "The lease under which the row was sent"
WORKER = "The sender's login; filled in by the server, workers have no right to write it"


def inbox(name: str, comment: str, *columns: Any) -> Table:
    texts = open_columns(columns)
    checks = [plain(*texts)] if texts else []
    return Table(name, metadata, *columns, *checks, schema="inbox", comment=comment)


inbox_pair = inbox(
    "pair",
    "Extracted links, from the COPY of an extract worker until the merge.",
    col("lease_id", BigInteger, LEASE),
    col("worker", Name(), WORKER, server_default=text("session_user")),
    col("ordinal", Integer, "Order within the WAT file, from 0: of equal URLs the first is kept"),
    col("url_key", UUID(), "As pair.url_key"),
    col("url", Text, "As pair.url"),
    col("text", Text, "As pair.text"),
    col("language", Text, "As pair.language", nullable=True),
    col("language_probability", REAL, "As pair.language_probability"),
    col("license", Text, "As pair.license", nullable=True),
    col("link_kind", Text, "As batch.link_kind", server_default="image"),
    col("page", Integer, "As pair.page: a page in inbox.page under the same lease; null where none is given", nullable=True),
    # a key that is not the URL's would pass by every removal, and hide the URL that it belongs to
    CheckConstraint("url_key = md5(url)::uuid", name="url_key"),
    CheckConstraint("char_length(url) <= 2048 and (starts_with(url, 'http://') or starts_with(url, 'https://'))", name="url"),
    CheckConstraint("char_length(text) <= 2000", name="text"),
    CheckConstraint("ordinal >= 0 and char_length(language) <= 35 and language_probability between 0 and 1.01" " and char_length(license) <= 2048 and char_length(link_kind) <= 20", name="rest"),
    Index(None, "lease_id"),
)

inbox_page = inbox(
    "page",
    "The pages of the rows in inbox.pair, each once, from the COPY of an extract worker until the merge.",
    col("lease_id", BigInteger, LEASE),
    col("worker", Name(), WORKER, server_default=text("session_user")),
    col("page", Integer, "As page.page"),
    col("url", Text, "As page.url", nullable=True),
    col("crawled_at", TIMESTAMP, "As page.crawled_at", nullable=True),
    col("opt_out_signal", Text, "The page's own opt-out, as opt_out.signal; null where the page has none", nullable=True),
    col("opt_out_value", Text, "As opt_out.value; null where the page has no opt-out", nullable=True),
    # a password in an address would be shown to every researcher
    CheckConstraint("page >= 0 and char_length(url) <= 2048 and url !~ '[\\x01- #\\x7f]' and url ~ '^https?://[^/?@]+([/?]|$)'", name="url"),
    CheckConstraint("crawled_at between '1990-01-01 00:00:00+00' and '2101-01-01 00:00:00+00'", name="crawled_at"),
    CheckConstraint("num_nulls(opt_out_signal, opt_out_value) in (0, 2) and char_length(opt_out_signal) <= 50 and char_length(opt_out_value) <= 500", name="opt_out"),
    Index(None, "lease_id"),
)

inbox_score = inbox(
    "score",
    "Scores and embeddings, from the COPY of a score worker until acceptance.",
    col("lease_id", BigInteger, LEASE),
    col("worker", Name(), WORKER, server_default=text("session_user")),
    col("part", Integer, "The part of the submission"),
    col("n", Integer, "As score.n"),
    col("outcome", SmallInteger, "As score.outcome"),
    col("similarity", REAL, "As score.similarity", nullable=True),
    col("image", LargeBinary, "As embedding.image; null unless scored", nullable=True),
    col("text", LargeBinary, "As embedding.text; null unless scored", nullable=True),
    col("text_tokens", SmallInteger, "As score.text_tokens", nullable=True),
    CheckConstraint("octet_length(image) <= 65536 and octet_length(text) <= 65536", name="size"),
    Index(None, "lease_id", "part"),
)

inbox_tag = inbox(
    "tag",
    "Tags, from the COPY of a score worker until acceptance.",
    col("lease_id", BigInteger, LEASE),
    col("worker", Name(), WORKER, server_default=text("session_user")),
    col("part", Integer, "The part of the submission"),
    col("model_id", Integer, "As tag.model_id"),
    col("n", Integer, "As tag.n"),
    col("label", SmallInteger, "As tag.label", nullable=True),
    col("value", REAL, "As tag.value", nullable=True),
    col("text", Text, "As tag.text", nullable=True),
    CheckConstraint("char_length(text) <= 2000", name="text"),
    Index(None, "lease_id", "part"),
)

merge_row = Table(
    "merge_row",
    metadata,
    col("bucket", SmallInteger, "The open batch that the row is dealt to: its batch.bucket"),
    col("place", Integer, "Place among the new rows of the bucket, from 0"),
    col("url_key", UUID(), "As inbox.pair.url_key"),
    col("url", Text, "As inbox.pair.url"),
    col("text", Text, "As inbox.pair.text"),
    col("language", Text, "As inbox.pair.language", nullable=True),
    col("language_probability", REAL, "As inbox.pair.language_probability"),
    col("license", Text, "As inbox.pair.license", nullable=True),
    col("link_kind", Text, "As inbox.pair.link_kind"),
    col("page", Integer, "As inbox.pair.page", nullable=True),
    schema="mill",
    comment="The merge's scratch: the new URLs of the extraction that is being accepted.",
    prefixes=["UNLOGGED"],
)

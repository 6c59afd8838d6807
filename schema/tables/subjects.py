"""What tasks are about: WAT files, which links come from, batches of pairs, and items."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
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
from sqlalchemy.dialects.postgresql import JSONB

from pairmill.schema.tables.base import NOW, TIMESTAMP, col, identity, mill

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
    col("crawl_id", Integer, "The crawl that it belongs to; null for a file added alone", ForeignKey("mill.crawl.crawl_id"), nullable=True),
    col("location", Text, "A path, or an http(s) or s3 URL, as the extract worker opens it", unique=True),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("link_kinds", ARRAY(Text), "Which kinds of links are extracted: image, audio, video, document", server_default="{image}"),
)

wat_count = mill(
    "wat_count",
    "What an accepted extraction counted.",
    col("submission_id", BigInteger, "The extraction"),
    col("wat_id", BigInteger, "The WAT file"),
    col("stage", Text, "records, links, bad_record, ended_early, dropped, duplicate or pair"),
    col("name", Text, "Within the stage: a drop reason, a kind of bad record, a language; empty where there is one count"),
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
    col("batch_id", BigInteger, "Key", Identity(always=False, minvalue=0, start=0), primary_key=True),
    col("bucket", SmallInteger, "The share of new pairs that it is dealt while it is open"),
    col("pair_count", Integer, "Pairs in it; the next pair's n", server_default="0"),
    col("opened_at", TIMESTAMP, "When it was opened", server_default=NOW),
    col("closed_at", TIMESTAMP, "When its download task was made; null while it is open", nullable=True),
    col("link_kind", Text, "The kind of links that it holds; image is the one that is downloaded", server_default="image"),
    Index("batch_open_idx", "link_kind", "bucket", unique=True, postgresql_where=text("closed_at is null")),
)

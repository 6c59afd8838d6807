"""Crawls, and the units of work: WAT files, batches, items."""

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

from pairmill.schema.outcomes import LANGUAGE_DETECTORS
from pairmill.schema.tables.base import NOW, TIMESTAMP, col, identity, mill, one_of

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
    col("location", Text, "A path, or an http(s) or s3 URL, as the extract worker opens it"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("link_kinds", ARRAY(Text), "Kinds of links to extract: image, audio, video, document", server_default="{image}"),
    col("language_detector", Text, "The detector of its texts' languages: cld3 or fasttext", one_of("language_detector", LANGUAGE_DETECTORS), server_default=LANGUAGE_DETECTORS[0]),
    col("removed_at", TIMESTAMP, "When an admin took it back, with its pairs; it may be added again", nullable=True),
    Index("wat_file_location_key", "location", unique=True, postgresql_where=text("removed_at is null")),
)

wat_count = mill(
    "wat_count",
    "The counts of an accepted extraction.",
    col("submission_id", BigInteger, "The extraction"),
    col("wat_id", BigInteger, "The WAT file"),
    col("stage", Text, "records, links, bad_record, ended_early, dropped, duplicate, attribute, pair, or opted_out: of the pairs, those whose page opts out"),
    col("name", Text, "Within the stage: a drop reason, a kind of bad record, an attribute that gave the URL, a language, a signal; empty where there is one count"),
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
    col("stage", Text, "As wat_count.stage; and files, the WAT files extracted"),
    col("name", Text, "As wat_count.name; of ended_early only the reason"),
    col("count", BigInteger, "How many"),
    PrimaryKeyConstraint("crawl_id", "link_kind", "stage", "name"),
    # count is in no index, so the updates are HOT
    postgresql_with={"fillfactor": "50"},
)

item = mill(
    "item",
    "The subject of a task that is about neither a WAT file nor a batch: a spec of its kind's own.",
    identity("item_id", "Key"),
    col("kind", Text, "The kind of work that it is for", ForeignKey("mill.task_kind.name")),
    col("spec", JSONB(), "The work to do, as JSON of the kind's own form"),
    col("digest", LargeBinary, "sha256 of the spec's text: the same item is not added twice"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    UniqueConstraint("kind", "digest"),
)

item_result = mill(
    "item_result",
    "The result of an item's task. Only inserted into; counts unless its submission is withdrawn.",
    col("item_id", BigInteger, "The item", ForeignKey("mill.item.item_id")),
    col("submission_id", BigInteger, "The submission that it came with"),
    col("result", JSONB(), "The result, as JSON of the kind's own form"),
    PrimaryKeyConstraint("item_id", "submission_id"),
)

batch = mill(
    "batch",
    "Up to batch_size pairs: the unit of download and scoring.",
    col("batch_id", BigInteger, "Key", Identity(always=False, minvalue=0, start=0), primary_key=True),
    col("bucket", SmallInteger, "The hash bucket of new pairs that it takes while it is open"),
    col("pair_count", Integer, "Pairs in it; the next pair's n", server_default="0"),
    col("opened_at", TIMESTAMP, "When it was opened", server_default=NOW),
    col("closed_at", TIMESTAMP, "When its download task was made; null while it is open", nullable=True),
    col("link_kind", Text, "The kind of its links; only image is downloaded", server_default="image"),
    col("dealt_at", TIMESTAMP, "When pairs came in last", server_default=NOW),
    Index("batch_open_idx", "link_kind", "bucket", unique=True, postgresql_where=text("closed_at is null")),
)

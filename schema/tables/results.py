"""Results: only ever inserted into, partitioned by ``batch_id``; thumbnails live briefly."""

from sqlalchemy import (
    REAL,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
)
from sqlalchemy.dialects.postgresql import UUID

from pairmill.schema.tables.base import TIMESTAMP, col, mill, one_of

BY_BATCH = {"postgresql_partition_by": "RANGE (batch_id)"}
BATCH_ID, N = "The batch", "Position within the batch, from 0"
FILES = ("robots.txt", "tdmrep.json", "ai.txt")
ATTEMPT = "Number of the batch's download attempt, from 1; the highest that counts is current"

pair = mill(
    "pair",
    "A URL with its alt text, of the first link with that URL.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    # here it fills what a bigint after an integer leaves empty, and costs nothing
    col("page", Integer, "Its page: mill.page, of the same WAT file and extraction; null where none was given", nullable=True),
    col("wat_id", BigInteger, "The WAT file that it came from"),
    col("submission_id", BigInteger, "The extraction that it came with"),
    col("url_key", UUID(), "md5 of the URL (UTF-8, without a fragment)"),
    col("url", Text, "Absolute, http or https, at most 2,048 characters, without a fragment"),
    col("text", Text, "The cleaned alt text, 2,000 characters at most, and a mill.text_weight of 5 at least"),
    col("language", Text, "Its language where wat_file.language_detector is sure, else null (nolang)", nullable=True),
    col("language_probability", REAL, "That detector's probability of its best guess, 0 to 1"),
    col("license", Text, "A licence link of the page, before or after the image; null where there is none", nullable=True),
    PrimaryKeyConstraint("batch_id", "n"),
    **BY_BATCH,
)

page = mill(
    "page",
    "A page of a WAT file from which an extraction has at least one pair.",
    col("wat_id", BigInteger, "The WAT file"),
    col("submission_id", BigInteger, "The extraction that it came with"),
    col("crawled_at", TIMESTAMP, "When it was crawled: its WARC-Date; null where the WAT has no valid one", nullable=True),
    col("page", Integer, "The number of its record in the WAT file, from 0"),
    col("url", Text, "Its address, http or https, at most 2,048 characters, without fragment, user and password; null where the WAT has none", nullable=True),
    PrimaryKeyConstraint("wat_id", "submission_id", "page"),
    postgresql_partition_by="RANGE (wat_id)",
)

seen_url = mill(
    "seen_url",
    "The known URLs and their pairs: tells new links from duplicates, and finds the row of a takedown.",
    col("url_key", UUID(), "md5 of the URL"),
    col("batch_id", BigInteger, "The batch of its pair"),
    col("n", Integer, "The position of its pair"),
    PrimaryKeyConstraint("url_key"),
    postgresql_partition_by="HASH (url_key)",
)

download = mill(
    "download",
    "The outcome of one download attempt at a pair's URL.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, ATTEMPT),
    col("outcome", SmallInteger, "As outcome.code; 0 is success"),
    col("http_status", SmallInteger, "The last status that a server gave; null where none did", nullable=True),
    col("bytes", Integer, "Length of the body as received; null where there was none", nullable=True),
    col("width", Integer, "Pixels, of the original, as it is meant to be seen (EXIF orientation applied)", nullable=True),
    col("height", Integer, "Pixels, of the original, as it is meant to be seen", nullable=True),
    col("md5", UUID(), "md5 of the body", nullable=True),
    col("sha1", LargeBinary, "SHA-1 of the body, 20 bytes", nullable=True),
    col("sha256", LargeBinary, "sha256 of the body, 32 bytes", nullable=True),
    col("dhash", BigInteger, "64-bit difference hash of the image, as a signed integer", nullable=True),
    col("pdq", LargeBinary, "PDQ of the image, 32 bytes; null of a flat image, of which it says nothing", nullable=True),
    col("submission_id", BigInteger, "The submission that it came with"),
    PrimaryKeyConstraint("batch_id", "n", "attempt"),
    **BY_BATCH,
)

score = mill(
    "score",
    "The similarity of a downloaded image and its text, by one model.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, "The download attempt whose thumbnail was scored"),
    col("model_id", Integer, "The model"),
    col("outcome", SmallInteger, "As score_outcome.code; 0 is scored"),
    col("similarity", REAL, "Cosine similarity of image and text, -1 to 1; null unless scored", nullable=True),
    col("submission_id", BigInteger, "The submission that it came with"),
    col("text_tokens", SmallInteger, "Tokens of the text, start and end among them, before the model cut them to its length; null: the worker gave none", nullable=True),
    # submission_id: a withdrawn score may be given again
    PrimaryKeyConstraint("batch_id", "n", "attempt", "model_id", "submission_id"),
    **BY_BATCH,
)

tag = mill(
    "tag",
    "A tagger's value for a downloaded image: aesthetic, punsafe, pwatermark and so on.",
    col("batch_id", BigInteger, BATCH_ID),
    col("model_id", Integer, "The tagger"),
    col("attempt", SmallInteger, "As score.attempt"),
    col("n", Integer, N),
    col("label", SmallInteger, "zero-shot: index into model.labels, from 0", nullable=True),
    col("value", REAL, "The value; null: NaN or an infinity", nullable=True),
    col("submission_id", BigInteger, "The submission that it came with"),
    col("text", Text, "pixels: the tagger's answer in words, at most 2,000 characters", nullable=True),
    # the model before n: one tagger's rows of a batch lie together. submission_id: as in score
    PrimaryKeyConstraint("batch_id", "model_id", "attempt", "n", "submission_id"),
    **BY_BATCH,
)

embedding = mill(
    "embedding",
    "The embeddings of a scored pair: float16, little-endian, L2-normalised, model.dims long.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, "As score.attempt"),
    col("model_id", Integer, "The model"),
    col("image", LargeBinary, "Of the thumbnail"),
    col("text", LargeBinary, "Of the alt text"),
    col("submission_id", BigInteger, "The submission that it came with"),
    # submission_id: a withdrawn score may be given again
    PrimaryKeyConstraint("batch_id", "n", "attempt", "model_id", "submission_id"),
    **BY_BATCH,
)

opt_out = mill(
    "opt_out",
    "The evidence of an opt-out: the own words of a site, or of the page, against collecting a URL.",
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, "The download attempt; 1 where the page opts out"),
    col("signal", Text, "robots.txt, tdmrep.json, ai.txt; a header: X-Robots-Tag, Robots-Tag, tdm-reservation, Content-Usage, Content-Signal; or an element of the page: meta robots, …"),
    col("value", Text, "The rule that forbids, at most 500 characters"),
    col("source", Text, "The URL that the rule was read from"),
    col("read_at", TIMESTAMP, "When it was read; of a page, when it was crawled"),
    col("submission_id", BigInteger, "The submission that it came with; of a page, the pair's own: the extraction"),
    PrimaryKeyConstraint("batch_id", "n", "attempt"),
    **BY_BATCH,
)

host_file = mill(
    "host_file",
    "The rules in a host's files as a worker read them, kept for a day so that each batch need not ask again.",
    col("origin", Text, "scheme://authority of the host, in lower case"),
    col("file", Text, "robots.txt, tdmrep.json or ai.txt", one_of("file", FILES)),
    col("worker_id", Integer, "The worker that read the file", ForeignKey("mill.worker.worker_id")),
    col("http_status", SmallInteger, "Status of the answer; null where there was none", nullable=True),
    # lines, in which a changed character would be another rule; no view or command shows them
    col("rules", Text, "The rules that concern us; empty where the file forbids nothing", info={"plain": False}),
    col("read_at", TIMESTAMP, "When it was read"),
    PrimaryKeyConstraint("origin", "file", "worker_id"),
    Index(None, "read_at"),
)

thumbnail = mill(
    "thumbnail",
    "Thumbnails for scoring: written at submission, read once the submission is accepted, truncated by slot.",
    col("slot", SmallInteger, "The slot of the ring"),
    col("batch_id", BigInteger, BATCH_ID),
    col("n", Integer, N),
    col("attempt", SmallInteger, "The download attempt"),
    col("submission_id", BigInteger, "The submission that it came with"),
    col("image", LargeBinary, "JPEG or WebP, short side 256 pixels at most"),
    PrimaryKeyConstraint("slot", "batch_id", "n", "attempt", "submission_id"),
    postgresql_partition_by="LIST (slot)",
)

thumbnail_slot = mill(
    "thumbnail_slot",
    "The ring of thumbnail partitions. With no slot empty or filling, no download is claimed.",
    col("slot", SmallInteger, "Key; mill.thumbnail_s<slot> is its partition", primary_key=True, autoincrement=False),
    col("state", Text, "empty, filling, or full (takes no further batch)", one_of("state", ("empty", "filling", "full")), server_default="empty"),
    col("batches", Integer, "Batches assigned to it since it was emptied", server_default="0"),
)

"""The columns of facts, a Parquet file a table.

Each file is sorted by sample_id (``batch_id << 14 | n``), attempt and submission_id. ``counts``:
whether the row counted when the file was written; of a sample at most one row does.
"""

import pyarrow as pa

KEY = [("sample_id", pa.int64()), ("counts", pa.bool_())]
SUBMISSION = ("submission_id", pa.int64())

PAIR = pa.schema(
    [
        *KEY,
        ("url", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),  # null: nolang
        ("language_probability", pa.float32()),
        ("language_detector", pa.string()),  # of its WAT file
        ("license", pa.string()),
        ("link_kind", pa.string()),  # of its batch
        ("wat_id", pa.int64()),
        ("page", pa.int32()),
        ("page_url", pa.string()),
        SUBMISSION,
    ]
)
DOWNLOAD = pa.schema(
    [
        *KEY,
        ("attempt", pa.int16()),
        ("outcome", pa.int16()),  # 0: success
        ("http_status", pa.int16()),
        ("bytes", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("md5", pa.binary()),  # 16 bytes
        ("sha1", pa.binary()),  # 20
        ("sha256", pa.binary()),  # 32
        ("dhash", pa.int64()),
        ("pdq", pa.binary()),  # 32
        SUBMISSION,
    ]
)
SCORE = pa.schema(
    [
        *KEY,
        ("attempt", pa.int16()),
        ("outcome", pa.int16()),  # 0: scored
        ("similarity", pa.float32()),
        ("text_tokens", pa.int16()),
        SUBMISSION,
    ]
)
TAG = pa.schema(
    [
        *KEY,
        ("attempt", pa.int16()),
        ("label", pa.int16()),
        ("value", pa.float32()),
        ("text", pa.string()),
        SUBMISSION,
    ]
)
OPT_OUT = pa.schema(
    [
        *KEY,
        ("attempt", pa.int16()),
        ("signal", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("read_at", pa.timestamp("us", "UTC")),
        SUBMISSION,
    ]
)
REFETCH = pa.schema(
    [
        *KEY,
        ("attempt", pa.int16()),
        ("outcome", pa.int16()),
        ("of_attempt", pa.int16()),
        SUBMISSION,
    ]
)


def embedding(dims: int) -> pa.Schema:
    """float16[dims] of image and text, L2-normalised."""
    vector = pa.list_(pa.field("item", pa.float16(), nullable=False), dims)
    return pa.schema(
        [*KEY, ("attempt", pa.int16()), ("image", vector), ("text", vector), SUBMISSION]
    )


# pair, download and opt_out are one file each, the others one a model
TABLES = ("pair", "download", "score", "tag", "embedding", "opt_out")
OF_A_MODEL = ("score", "tag", "embedding")
# a partition's files: refetch is what its rows are brought back with, and says nothing of a pair
ARCHIVED = (*TABLES, "refetch")

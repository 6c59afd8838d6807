"""Cover rows: rows that leave releases with the removed ones, so that nobody can tell which is which."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    text,
)

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill

cover_setting = mill(
    "cover_setting",
    "The secret of cover rows, and what an admin wants of them: one row. Change all but the key with UPDATE.",
    col("only_row", Integer, "Always 1", CheckConstraint("only_row = 1", name="only_row"), primary_key=True, autoincrement=False),
    # two random UUIDs of pg_strong_random have 244 random bits
    col("key", LargeBinary, "Key of HMAC-SHA256, which draws covers and signs the version of the removals. Whoever has it can tell covers from removed rows; a new one breaks the versions that were published",
        CheckConstraint("octet_length(key) = 32", name="key"), server_default=text("sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))")),
    col("covers_per_removal", Integer, "Cover rows for each removed row of a release that is updated, at least; 0: none", CheckConstraint("covers_per_removal >= 0", name="covers_per_removal"), server_default="1000"),
    col("min_removals", Integer, "Removed rows without covers yet for which a release is updated, at least: a batch of one names its row to whoever asked for it", CheckConstraint("min_removals >= 1", name="min_removals"), server_default="10"),
    col("days_between", Integer, "Days between two draws for the releases of a name, at least; 0: any time", CheckConstraint("days_between >= 0", name="days_between"), server_default="30"),
)

cover_draw = mill(
    "cover_draw",
    "The draws of cover rows.",
    identity("draw_id", "Key"),
    col("release_name", Text, "The name of the release that they were drawn from"),
    col("manifest_sha256", Text, "sha256 of its manifest, hexadecimal"),
    col("removals", BigInteger, "Rows of it that had to go"),
    col("covers", BigInteger, "Cover rows that were drawn"),
    col("drawn_at", TIMESTAMP, "When", server_default=NOW),
    col("drawn_by", Name(), "The login that drew them", server_default=text("session_user")),
    Index(None, "release_name"),
)

cover_row = mill(
    "cover_row",
    "The cover rows: left out of every release as a removed pair is, for good. No view shows them.",
    col("sample_id", BigInteger, "As mill.sample_id of the pair", primary_key=True, autoincrement=False),
    col("draw_id", BigInteger, "The draw", ForeignKey("mill.cover_draw.draw_id"), index=True),
)

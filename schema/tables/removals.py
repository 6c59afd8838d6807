"""Removals: what no release may contain, the lists and requests that they come from, and the pairs that they name."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from pairmill.schema.tables.base import NOW, TIMESTAMP, Name, col, identity, mill, one_of

removal = mill(
    "removal",
    "URLs, their prefixes, hosts, images and samples that no release may contain, and no ingest may let in.",
    identity("removal_id", "Key"),
    col("source", Text, "What was given: a URL as the extractor writes it, without a fragment; with * at its end a prefix; a host, *.example.org with all below it; a hash; pdq:, dhash: or sample: and a value"),
    col("md5", UUID(), "md5 of a URL, or of an image's bytes; matches either", nullable=True),
    col("sha1", LargeBinary, "SHA-1 of an image's bytes", nullable=True),
    col("sha256", LargeBinary, "sha256 of an image's bytes", nullable=True),
    col("dhash", BigInteger, "dHash of images, as download.dhash: these 64 bits and no others", nullable=True),
    col("pdq", LargeBinary, "PDQ of images, as download.pdq, and of those near it", nullable=True),
    col("pdq_distance", SmallInteger, "In how many of 256 bits an image's PDQ may differ, 31 at most", nullable=True),
    col("sample_id", BigInteger, "SAMPLE_ID of a pair: batch_id * 16,384 + n", nullable=True),
    col("reason", Text, "Why, in the admin's words; may be empty"),
    col("added_at", TIMESTAMP, "When it was added", server_default=NOW),
    col("host", Text, "A host of URLs, in lower case, as mill.host gives it; that of prefix, where there is one", nullable=True),
    col("prefix", Text, "The beginning of URLs of the host: scheme, host and a slash at least", nullable=True),
    col("subdomains", Boolean, "Whether the hosts below the host are meant, too", server_default="false"),
    col("spelling_of", BigInteger, "The removal that this one is another spelling of; null: it is what was given", ForeignKey("mill.removal.removal_id", ondelete="CASCADE"), nullable=True),
    col("by_hand", Boolean, "Whether somebody added it by itself; else it stands as long as a list names it", server_default="true"),
    col("added_by", Name(), "The login that added it", server_default=text("session_user")),
    col("found_at", TIMESTAMP, "When all the pairs were found that it names; null: the search was interrupted, and the next `removal add` or `search` ends it", nullable=True),
    CheckConstraint("num_nonnulls(md5, sha1, sha256, dhash, pdq, sample_id, host) = 1", name="key"),
    CheckConstraint("(pdq is null) = (pdq_distance is null) and pdq_distance between 0 and 31", name="pdq"),
    CheckConstraint("prefix is null or host is not null and not subdomains", name="prefix"),
    CheckConstraint("host is not null or not subdomains", name="subdomains"),
    # by md5: a URL may be longer than a row of an index
    Index("removal_source_key", text("md5(source)"), "spelling_of", unique=True, postgresql_nulls_not_distinct=True),
    # not unique: a spelling may belong to several URLs, or be given as a hash, too; each removal may be taken back alone
    Index(None, "md5", postgresql_where=text("md5 is not null")),
    Index(None, "sha1", postgresql_where=text("sha1 is not null")),
    Index(None, "sha256", postgresql_where=text("sha256 is not null")),
    Index(None, "dhash", postgresql_where=text("dhash is not null")),
    # of how many PDQs there are, and of whose search is not over
    Index("removal_pdq_idx", "removal_id", postgresql_where=text("pdq is not null")),
    Index("removal_searched_idx", "removal_id", postgresql_where=text("found_at is null")),
    Index(None, "host", postgresql_where=text("host is not null")),
    Index(None, "spelling_of", postgresql_where=text("spelling_of is not null")),
)

removed_pair = mill(
    "removed_pair",
    "The pairs that removals name: found once when a removal is added, at the acceptance of a download that gives the image, and by a search of those that a PDQ may name.",
    col("batch_id", BigInteger, "The batch"),
    col("n", Integer, "Position within the batch, from 0"),
    col("removal_id", BigInteger, "The removal", ForeignKey("mill.removal.removal_id", ondelete="CASCADE")),
    col("submission_id", BigInteger, "The download that gave the image; null where the removal names the URL, its host or the sample", nullable=True),
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

removal_list = mill(
    "removal_list",
    "The lists of removals that were imported: of each source the newest counts.",
    identity("list_id", "Key"),
    col("source", Text, "Who gives it, as recipes require it: iwf, c3p, …"),
    col("format", Text, "The format that it was read as"),
    col("dated", TIMESTAMP, "When its source made it"),
    col("expires_at", TIMESTAMP, "When no release may rest on it any more; null: never", nullable=True),
    col("digest", LargeBinary, "sha256 of the file"),
    col("entries", BigInteger, "Removals that it names"),
    col("imported_at", TIMESTAMP, "When it was imported", server_default=NOW),
    col("imported_by", Name(), "The login that imported it", server_default=text("session_user")),
    Index(None, "source"),
)

removal_listed = mill(
    "removal_listed",
    "The removals that lists name: of each source the newest list that names them.",
    col("list_id", BigInteger, "The list", ForeignKey("mill.removal_list.list_id")),
    col("removal_id", BigInteger, "The removal", ForeignKey("mill.removal.removal_id", ondelete="CASCADE")),
    PrimaryKeyConstraint("list_id", "removal_id"),
    Index(None, "removal_id"),
)

removal_request = mill(
    "removal_request",
    "What was asked to be removed, until an admin approves or refuses it. Who asked is shown to admins alone.",
    identity("request_id", "Key"),
    col("entries", ARRAY(Text), "What is to be removed, as `removal add` takes it"),
    col("of_pages", Boolean, "Whether the URLs are of pages, and the images of their pairs are meant", server_default="false"),
    col("requester", Text, "Who asked, and how to answer: an address; empty once it was forgotten"),
    col("evidence", Text, "Why they may ask, in their words or the admin's; may be empty"),
    col("received_at", TIMESTAMP, "When it came", server_default=NOW),
    col("due_at", TIMESTAMP, "When it has to be answered"),
    col("noted_by", Name(), "The login that noted it", server_default=text("session_user")),
    col("state", Text, "open, approved or refused", one_of("state", ("open", "approved", "refused")), server_default="open"),
    col("decided_at", TIMESTAMP, "When it was approved or refused; null while it is open", nullable=True),
    col("decided_by", Name(), "The login that decided", nullable=True),
    col("why", Text, "Why it was approved or refused; may be empty", nullable=True),
    col("removals", ARRAY(BigInteger), "The removals that its approval made, or that were there; null while it is open, or refused", nullable=True),
    col("attachment", ARRAY(Text), "Text that came with it, a line each; {} where none did", server_default="{}"),
    col("origin", Text, "Where it was noted: by `pairmill removal request add` (command), or on the page (web)", one_of("origin", ("command", "web")), server_default="command"),
    col("token_sha256", LargeBinary, "sha256 of the token that shows its state on the page; null: it was noted by the command", nullable=True),
    CheckConstraint("cardinality(entries) > 0", name="entries"),
    CheckConstraint("(state = 'open') = (decided_at is null)", name="decided"),
    CheckConstraint("octet_length(token_sha256) = 32 and origin = 'web' or token_sha256 is null and origin = 'command'", name="token"),
    UniqueConstraint("token_sha256"),
    Index(None, "due_at", postgresql_where=text("state = 'open'")),
    # how many came within a day
    Index("removal_request_web_idx", "received_at", postgresql_where=text("origin = 'web'")),
)

pdq_waiting = mill(
    "pdq_waiting",
    "The accepted downloads whose images have not been compared with the removals' PDQs.",
    col("submission_id", BigInteger, "The submission", primary_key=True, autoincrement=False),
    col("batch_id", BigInteger, "Its batch"),
)

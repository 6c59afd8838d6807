"""The working copy of a release: its rows in a DuckDB file, with what finds them quickly.

A release's Parquet is made to be loaded whole: a row of it is decoded with 99,999 others. The copy
has the rows by SAMPLE_ID, each host and its subdomains as one range of numbers, the hashes of URLs
and image files in order, and the words of each text. It is made once, from the files alone, and
named by the manifest: a release that was built again gets another.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.errors import UserError, extra
from pairmill.ops.files import atomic_folder
from pairmill.ops.queries import query_text
from pairmill.ops.release.folder import ReleaseFolder, manifest_text
from pairmill.ops.web.explore.duck import literal, no_pattern, one_line, quoted
from pairmill.ops.web.explore.release_columns import REVERSED, ReleaseColumns

if TYPE_CHECKING:
    import duckdb

FORMAT = 2
NAME, ROWS = "rows.duckdb", "rows.arrow"
BATCH = 65_536  # rows of the Arrow file that a position is looked up in
COMMON = 64  # words that are bits: at 10^7 rows the next ones have 2·10^5 positions to look up
SAMPLE = 100_000  # rows that histograms of wide selections are counted from
MEMORY = "1GB"  # of DuckDB while it builds; it spills beyond that
# A word is a run of letters, marks and digits; where a script sets no spaces, each character is one
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD = r"[\p{L}\p{M}\p{N}]+"
Progress = Callable[[int, int], None]


def words_sql(text: str) -> str:
    """The words of a text as SQL, in lower case. The pages ask for what this finds."""
    lower = f"lower({text})"
    parted = f"regexp_replace(nfc_normalize({lower}), '({SPACELESS})', ' \\1 ', 'g')"
    # nine texts of ten are ASCII, and cost half as much
    plain = f"case when strlen({text}) = length({text}) then {lower} else {parted} end"
    return f"regexp_extract_all({plain}, '{WORD}')"


def copy_name(folder: Path) -> str:
    """The folder's name of a release's copy. DuckDB's hashes may be others in another version."""
    with extra("ops"):
        import duckdb
    made = manifest_text(folder) + f"\n{FORMAT} {duckdb.__version__}".encode()
    return hashlib.sha256(made).hexdigest()[:32]


def source_sql(parts: list[Path], columns: ReleaseColumns) -> str:
    """The rows of a release's files as they are written, as SQL."""
    files = ", ".join(literal(no_pattern(part.absolute())) for part in parts)
    names = ", ".join(quoted(name) for name in columns.names)
    return f"select {names} from read_parquet([{files}])"


def view_sql(parts: list[Path], columns: ReleaseColumns) -> str:
    """As a working copy has them, read from the files: ``_host`` is the name, for there are no
    numbers."""
    source = source_sql(parts, columns)
    return f"select {columns.id_sql()} as _id, {columns.host_sql()} as _host, * from ({source})"


def build(
    release: ReleaseFolder,
    columns: ReleaseColumns,
    out: Path,
    *,
    memory: str = MEMORY,
    threads: int = 1,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make the copy in the folder ``out``, whole or not at all.

    progress is called with (steps done, steps), a step being a file read or written. Raises
    UserError where a file of the release cannot be read, or the disk is full.
    """
    with extra("ops"):
        import duckdb
    steps = _Steps(2 * len(release.parts) + 5, progress)
    try:
        with atomic_folder(out) as half:
            spill = half / "spill"
            spill.mkdir()
            with duckdb.connect(half / NAME) as db:
                db.execute("set memory_limit = $1", [memory])
                db.execute("set threads = $1", [threads])
                db.execute("set temp_directory = $1", [str(spill)])
                db.execute("set enable_progress_bar = false")
                db.execute(f"attach {literal(spill / NAME)} as source")
                _gather(db, release.parts, columns, steps)
                _index(db, columns, steps)
                _write(db, release, columns, half / ROWS, steps)
                db.execute("detach source")
                db.execute("checkpoint")
            shutil.rmtree(spill)
            steps.done()
    except duckdb.Error as error:
        raise UserError(f"{release.folder} cannot be read: {one_line(error)}") from None
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{out} cannot be written: {reason}") from None


class _Steps:
    def __init__(self, total: int, progress: Progress) -> None:
        self._at, self._total, self._progress = 0, total, progress

    def done(self, count: int = 1) -> None:
        if not count:
            return
        self._at = min(self._total, self._at + count)
        self._progress(self._at, self._total)


def _statement(name: str, **values: str) -> str:
    return query_text("web", f"explore/{name}").format(**values)


def _gather(
    db: "duckdb.DuckDBPyConnection", parts: list[Path], columns: ReleaseColumns, steps: _Steps
) -> None:
    """``host``, and ``source.whole``: the rows in order, with the numbers of their hosts."""
    host, every = columns.host_sql(), source_sql(parts, columns)
    backwards = REVERSED.format(host="name")
    db.execute(_statement("copy_hosts", source=every, host=host, reversed=backwards))
    steps.done()
    for number, part in enumerate(parts):
        into = "insert into source.whole" if number else "create table source.whole as"
        source = source_sql([part], columns)
        db.execute(
            _statement("copy_rows", into=into, source=source, id=columns.id_sql(), host=host)
        )
        steps.done()
    counted = db.execute(query_text("web", "explore/copy_disorder")).fetchone()
    if counted and counted[0]:
        raise UserError(
            f"rows with the SAMPLE_ID of another, or in a file after a greater one: {counted[0]:,};"
            " `pairmill release check` tells more"
        )


def _index(db: "duckdb.DuckDBPyConnection", columns: ReleaseColumns, steps: _Steps) -> None:
    """The tables by which rows are found: keys of URLs and files, words."""
    for role in ("url", "md5", "sha256"):
        if columns.get(role):
            db.execute(_statement("copy_keys", table=f"{role}_key", column=columns.sql(role)))
    steps.done()
    words = words_sql(columns.sql("text")) if columns.get("text") else "[]::varchar[]"
    db.execute(_statement("copy_words", words=words))
    steps.done()
    db.execute(query_text("web", "explore/copy_common"), [COMMON])
    steps.done()


def _write(
    db: "duckdb.DuckDBPyConnection",
    release: ReleaseFolder,
    columns: ReleaseColumns,
    out: Path,
    steps: _Steps,
) -> None:
    """``release``: what rows are filtered and ordered by; ``out``: all of each row, uncompressed,
    so that one is read by its position, and no other with it."""
    bits = _common_bits(db, release.rows)
    narrow = ["_id", "_host", *columns.narrow()]
    shown = ", ".join(quoted(name) for name in columns.names)
    inner = ", ".join(quoted(name) for name in narrow)
    ordered = f"select _id, _host, {shown} from source.whole order by rowid"
    batches = db.cursor().sql(ordered).to_arrow_reader(BATCH)
    writer, at, per_step = None, 0, max(1, release.rows // max(1, len(release.parts)))
    with pa.OSFile(str(out), "wb") as file:
        for batch in _even(batches):
            positions = np.arange(at, at + len(batch), dtype=np.int32)
            piece = pa.table(batch)
            taken = piece.select(narrow)
            taken = taken.append_column("_position", pa.array(positions))
            taken = taken.append_column("_common", pa.array(bits[at : at + len(batch)]))
            db.register("taken", taken)
            into = "insert into release" if at else "create table release as"
            db.execute(f"{into} select {inner}, _position, _common from taken")
            db.unregister("taken")
            if writer is None:
                writer = pa.ipc.new_file(file, piece.schema)
            writer.write_table(piece)
            steps.done((at + len(batch)) // per_step - at // per_step)
            at += len(batch)
        if writer is not None:
            writer.close()
    if not at:
        raise UserError("it has no rows")
    db.execute(query_text("web", "explore/copy_sample"), [max(1, round(at / SAMPLE))])


def _even(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of exactly ``BATCH`` rows, but for the last one: a position names its batch."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        while rows >= BATCH:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, BATCH).combine_chunks()
            waiting = table.slice(BATCH).to_batches()
            rows -= BATCH
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _common_bits(db: "duckdb.DuckDBPyConnection", rows: int) -> npt.NDArray[np.uint64]:
    """uint64[rows]: a bit for each of the commonest words that the row's text has."""
    bits = np.zeros(rows, np.uint64)
    for key, bit in db.execute("select key, bit from common").fetchall():
        found = db.execute("select position from word where key = $1", [key]).fetchnumpy()
        bits[found["position"]] |= np.uint64(1 << bit)
    return bits


def drop_old(work: Path, kept: set[str]) -> None:
    """Delete the copies of releases that are no longer there, and halves of them."""
    for folder in work.iterdir() if work.is_dir() else ():
        name = folder.name.removeprefix(".").removesuffix(".unfinished")
        if len(name) == 32 and set(name) <= set("0123456789abcdef") and name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def lower_priority() -> None:
    """Of a process that builds beside one that answers."""
    if hasattr(os, "nice"):
        os.nice(10)

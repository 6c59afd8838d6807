"""The columns of which layouts are made: names and types, and their values from a recipe's rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError
from pairmill.ops.release.recipe import Recipe

Labels = Sequence[Sequence[str] | None]  # of each of the recipe's taggers
_HEX = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), "S2")


@dataclass(frozen=True)
class Kept:
    """Rows of ``candidate`` that a recipe keeps, by which a layout's columns are made."""

    rows: pa.Table
    recipe: Recipe
    labels: Labels

    def column(self, name: str) -> pa.ChunkedArray:
        if name not in self.rows.column_names:
            return pa.chunked_array([pa.nulls(len(self.rows))])
        return self.rows[name]

    def tag(self, name: str) -> pa.ChunkedArray:
        tags = list(self.recipe.tags)
        return self.column(f"tag_{tags.index(name)}" if name in tags else "")

    def label(self, name: str) -> pa.ChunkedArray:
        """The words of a zero-shot tagger; null where it gave none, or there is none."""
        tags = list(self.recipe.tags)
        words = self.labels[tags.index(name)] if name in tags else None
        if not words:
            return self.column("")
        at = self.column(f"label_{tags.index(name)}")
        return pa.chunked_array([pa.array(words, pa.string()).take(at.combine_chunks())])


Make = Callable[[Kept], pa.Array | pa.ChunkedArray]
Needed = Callable[[Recipe], bool]


def always(recipe: Recipe) -> bool:
    return True


@dataclass(frozen=True)
class Column:
    """A column of a layout. needed: whether a release of this recipe has it."""

    name: str
    kind: pa.DataType
    make: Make
    needed: Needed = always


def hashes(kept: Kept) -> pa.Array:
    """int64: mmh3 of URL and TEXT, a null as '': the join key of LAION's files."""
    url, text = (kept.column(name).cast(pa.large_string()) for name in ("url", "text"))
    # joined by Arrow and hashed as bytes: 2.1 million a second, and 1.4 as two lists of texts
    nothing = pa.scalar("", pa.large_string())
    pairs = pc.binary_join_element_wise(url, text, nothing, null_handling="replace")
    hashed = mmh3.hash64
    return pa.array(
        [hashed(pair)[0] for pair in pairs.cast(pa.large_binary()).to_pylist()], pa.int64()
    )


def hexadecimal(values: pa.Array | pa.ChunkedArray, width: int) -> pa.Array:
    """Lower-case digits of binary values of ``width`` bytes; null of a null. Raises UserError for
    another length."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    valid = np.asarray(values.is_valid())
    try:
        whole = values.drop_null().cast(pa.binary()).cast(pa.binary(width))
    except pa.ArrowInvalid:
        raise UserError(f"a digest is not {width} bytes long: the facts are damaged") from None
    raw = np.frombuffer(whole.buffers()[1] or b"", np.uint8)
    raw = raw[width * whole.offset : width * (whole.offset + len(whole))]
    return _strings(_HEX[raw].tobytes(), 2 * width, valid)


def _strings(digits: bytes, width: int, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """``width`` of the digits for each valid value."""
    ends = np.zeros(len(valid) + 1, np.int64)
    np.cumsum(np.where(valid, width, 0), out=ends[1:])
    bits = np.packbits(valid, bitorder="little")
    buffers = [pa.py_buffer(part) for part in (bits, ends, digits)]
    return pa.Array.from_buffers(pa.large_string(), len(valid), buffers)


def uids(kept: Kept) -> pa.Array:
    """DataComp's uid: the SAMPLE_ID as 32 hexadecimal digits, of which the first 16 are 0."""
    ids = kept.column("sample_id").to_numpy()
    halves = np.zeros((len(ids), 2), ">u8")
    halves[:, 1] = ids
    digits = _HEX[halves.reshape(-1).view(np.uint8)].tobytes()
    return _strings(digits, 32, np.ones(len(ids), bool))


def plain(
    column: str,
    kind: pa.DataType,
    name: str,
    needed: Needed = always,
) -> Column:
    return Column(name, kind, lambda kept: kept.column(column), needed)


def tag_column(name: str, column: str = "", needed: Needed = always) -> Column:
    return Column(column or name, pa.float32(), lambda kept: kept.tag(name), needed)


def similarity_column(name: str) -> Column:
    """float64 as LAION has it, of the shortest decimal that is the float32: 0.3, and not
    0.30000001192."""
    return Column(name, pa.float64(), lambda kept: pc.cast(kept.column(name), pa.string()))


def digest_column(name: str, width: int) -> Column:
    return Column(name, pa.string(), lambda kept: hexadecimal(kept.column(name), width))


def null_column(name: str, kind: pa.DataType) -> Column:
    return Column(name, kind, lambda kept: pa.nulls(len(kept.rows)))


def several_languages(recipe: Recipe) -> bool:
    """LAION's sets of one language have no column that says so."""
    return len(recipe.languages) != 1


def has_aesthetic(recipe: Recipe) -> bool:
    return "aesthetic" in recipe.tags


def score_by(architecture: str) -> Make:
    """The similarity by OpenAI's weights of an architecture, whatever of the recipe's models that
    is; null: none of them is."""

    def make(kept: Kept) -> pa.ChunkedArray:
        recipe, wanted = kept.recipe, f"{architecture} openai"
        if f"{recipe.model} {recipe.pretrained}" == wanted:
            return kept.column("similarity")
        names = [name for name, model in recipe.similarities.items() if model == wanted]
        return kept.column(f"similarity_{names[0]}" if names else "")

    return make


def license_or_mark(kept: Kept) -> pa.ChunkedArray:
    return pc.fill_null(kept.column("license").cast(pa.string()), "?")


def no_boxes(kept: Kept) -> pa.Array:
    """No face was looked for: an empty list, which DataComp's resharder takes."""
    return pa.array([[]] * len(kept.rows), BOXES)


BOXES = pa.list_(pa.list_(pa.float64()))
TEXT, INTEGER = pa.string(), pa.int32()
SAMPLE_ID = plain("sample_id", pa.int64(), "SAMPLE_ID")
URL, WORDS = plain("url", TEXT, "URL"), plain("text", TEXT, "TEXT")
HEIGHT, WIDTH = plain("height", INTEGER, "HEIGHT"), plain("width", INTEGER, "WIDTH")
LANGUAGE = plain("language", TEXT, "LANGUAGE")
LANGUAGE_OF_SEVERAL = plain("language", TEXT, "LANGUAGE", several_languages)
NSFW = Column("NSFW", TEXT, lambda kept: kept.label("NSFW"))
SIMILARITY = similarity_column("similarity")
HASH = Column("hash", pa.int64(), hashes)
PUNSAFE, PWATERMARK, AESTHETIC = (
    tag_column(name) for name in ("punsafe", "pwatermark", "aesthetic")
)

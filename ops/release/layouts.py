"""The layouts of a release's files: names, types and nulls of the columns that users of other data
sets load, so that a table of both can be made.

The types are read from those data sets' own files. What a layout has no column for is not written:
a threshold works on a tag all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mmh3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError
from pairmill.ops.release.keep_list_ids import ids_of, sample_ids
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


@dataclass(frozen=True)
class ReleaseLayout:
    """name, columns: in their order. id_column: the one that has the SAMPLE_ID, as a number or, of
    32 hexadecimal digits, as a text; None: the rows are told apart by ``hash`` alone.
    tags: whether further tags and similarities of the recipe are columns after those."""

    name: str
    columns: tuple[Column, ...]
    id_column: str | None
    tags: bool = False

    def schema(self, recipe: Recipe) -> pa.Schema:
        return pa.schema([(column.name, column.kind) for column in self._columns(recipe)])

    def table(self, internal: pa.Table, recipe: Recipe, labels: Labels = ()) -> pa.Table:
        """The rows as this layout has them. internal: columns of ``candidate``, in order. labels:
        of each of the recipe's taggers. Raises UserError for a similarity or a size that there
        cannot be, which the filters leave out."""
        kept = Kept(internal, recipe, labels or [None] * len(recipe.tags))
        check_ranges(internal, recipe)
        arrays = [pc.cast(column.make(kept), column.kind) for column in self._columns(recipe)]
        return pa.Table.from_arrays(arrays, schema=self.schema(recipe))

    def _columns(self, recipe: Recipe) -> list[Column]:
        chosen = [column for column in self.columns if column.needed(recipe)]
        if recipe.with_sample_id and self.id_column is None:
            chosen.append(SAMPLE_ID)
        if self.tags:
            names = {column.name for column in chosen}
            chosen += [_tag(name) for name in recipe.tags if name not in names]
            chosen += [_similarity(f"similarity_{name}") for name in recipe.similarities]
        return chosen


def check_ranges(internal: pa.Table, recipe: Recipe) -> None:
    """Raises UserError, naming the SAMPLE_ID, for a value that no pair can have."""
    inside: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
        "similarity": lambda of: pc.and_(pc.greater_equal(of, -1.0), pc.less_equal(of, 1.0)),
        "width": lambda of: pc.greater(of, 0),
        "height": lambda of: pc.greater(of, 0),
    }
    for name, holds in inside.items():
        if name not in internal.column_names:
            continue
        outside = pc.invert(holds(internal[name]))  # a null stays one
        if pc.any(outside).as_py():
            first = internal.filter(outside).slice(0, 1)
            raise UserError(
                f"SAMPLE_ID {first['sample_id'][0]} has the {name} {first[name][0]}, which cannot"
                f" be: {recipe.name} is not written; withdraw the submission that it came with"
            )


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


def _plain(
    column: str,
    kind: pa.DataType,
    name: str,
    needed: Needed = always,
) -> Column:
    return Column(name, kind, lambda kept: kept.column(column), needed)


def _tag(name: str, column: str = "", needed: Needed = always) -> Column:
    return Column(column or name, pa.float32(), lambda kept: kept.tag(name), needed)


def _similarity(name: str) -> Column:
    """float64 as LAION has it, of the shortest decimal that is the float32: 0.3, and not
    0.30000001192."""
    return Column(name, pa.float64(), lambda kept: pc.cast(kept.column(name), pa.string()))


def _digest(name: str, width: int) -> Column:
    return Column(name, pa.string(), lambda kept: hexadecimal(kept.column(name), width))


def _none(name: str, kind: pa.DataType) -> Column:
    return Column(name, kind, lambda kept: pa.nulls(len(kept.rows)))


def several_languages(recipe: Recipe) -> bool:
    """LAION's sets of one language have no column that says so."""
    return len(recipe.languages) != 1


def has_aesthetic(recipe: Recipe) -> bool:
    return "aesthetic" in recipe.tags


def _score(architecture: str) -> Make:
    """The similarity by OpenAI's weights of an architecture, whatever of the recipe's models that
    is; null: none of them is."""

    def make(kept: Kept) -> pa.ChunkedArray:
        recipe, wanted = kept.recipe, f"{architecture} openai"
        if f"{recipe.model} {recipe.pretrained}" == wanted:
            return kept.column("similarity")
        names = [name for name, model in recipe.similarities.items() if model == wanted]
        return kept.column(f"similarity_{names[0]}" if names else "")

    return make


def _license(kept: Kept) -> pa.ChunkedArray:
    return pc.fill_null(kept.column("license").cast(pa.string()), "?")


def _boxes(kept: Kept) -> pa.Array:
    """No face was looked for: an empty list, which DataComp's resharder takes."""
    return pa.array([[]] * len(kept.rows), BOXES)


BOXES = pa.list_(pa.list_(pa.float64()))
TEXT, INTEGER = pa.string(), pa.int32()
SAMPLE_ID = _plain("sample_id", pa.int64(), "SAMPLE_ID")
URL, WORDS = _plain("url", TEXT, "URL"), _plain("text", TEXT, "TEXT")
HEIGHT, WIDTH = _plain("height", INTEGER, "HEIGHT"), _plain("width", INTEGER, "WIDTH")
LANGUAGE = _plain("language", TEXT, "LANGUAGE")
LANGUAGE_OF_SEVERAL = _plain("language", TEXT, "LANGUAGE", several_languages)
NSFW = Column("NSFW", TEXT, lambda kept: kept.label("NSFW"))
SIMILARITY = _similarity("similarity")
HASH = Column("hash", pa.int64(), hashes)
PUNSAFE, PWATERMARK, AESTHETIC = (_tag(name) for name in ("punsafe", "pwatermark", "aesthetic"))

LAYOUTS = {
    layout.name: layout
    for layout in (
        ReleaseLayout(
            "pairmill",
            (
                SAMPLE_ID, URL, WORDS, HEIGHT, WIDTH, _plain("license", TEXT, "LICENSE"),
                LANGUAGE, NSFW, SIMILARITY, HASH, _digest("md5", 16), PUNSAFE, PWATERMARK,
                AESTHETIC,
            ),
            "SAMPLE_ID",
            tags=True,
        ),
        # LAION-400M; with LANGUAGE laion2B-multi
        ReleaseLayout(
            "laion-400m",
            (
                SAMPLE_ID, URL, WORDS, HEIGHT, WIDTH, Column("LICENSE", TEXT, _license),
                LANGUAGE_OF_SEVERAL, NSFW, SIMILARITY,
            ),
            "SAMPLE_ID",
        ),
        # laion2B-en-joined, with LANGUAGE laion2B-multi-joined and -high-resolution, with aesthetic
        # laion2B-en-aesthetic and LAION-Art
        ReleaseLayout(
            "laion-joined",
            (
                URL, WORDS, WIDTH, HEIGHT, SIMILARITY, LANGUAGE_OF_SEVERAL, HASH, PWATERMARK,
                PUNSAFE,
                _tag("aesthetic", "aesthetic", has_aesthetic),
            ),
            None,
        ),
        # improved_aesthetics_6plus and its like, whose sizes are float64
        ReleaseLayout(
            "laion-aesthetics-v2",
            (
                URL, WORDS, _plain("width", pa.float64(), "WIDTH"),
                _plain("height", pa.float64(), "HEIGHT"), SIMILARITY, PUNSAFE, PWATERMARK,
                _tag("aesthetic", "AESTHETIC_SCORE"), HASH,
            ),
            None,
        ),
        # what is known of Re-LAION's columns, and the joined files' others in lower case
        ReleaseLayout(
            "re-laion",
            (
                _plain("url", TEXT, "url"), _plain("text", TEXT, "caption"),
                _plain("width", INTEGER, "width"), _plain("height", INTEGER, "height"),
                SIMILARITY, _plain("language", TEXT, "language", several_languages),
                HASH, PUNSAFE, PWATERMARK,
            ),
            None,
        ),
        ReleaseLayout(
            "datacomp",
            (
                Column("uid", TEXT, uids), _plain("url", TEXT, "url"),
                _plain("text", TEXT, "text"),
                _plain("width", pa.int64(), "original_width"),
                _plain("height", pa.int64(), "original_height"),
                Column("clip_b32_similarity_score", pa.float32(), _score("ViT-B-32")),
                Column("clip_l14_similarity_score", pa.float32(), _score("ViT-L-14")),
                Column("face_bboxes", BOXES, _boxes), _digest("sha256", 32),
            ),
            "uid",
        ),
        # captions are another model's work, of which a release has none yet
        ReleaseLayout(
            "laion-coco",
            (
                URL, WORDS, _none("top_caption", TEXT), _none("all_captions", pa.list_(TEXT)),
                _none("all_similarities", pa.list_(pa.float64())), WIDTH, HEIGHT, SIMILARITY, HASH,
                PWATERMARK, PUNSAFE,
            ),
            None,
        ),
    )
}  # fmt: skip


def layout(name: str) -> ReleaseLayout:
    return LAYOUTS[name]


# other layouts' names of Pairmill's columns, in lower case
_NAMES = {
    "uid": "SAMPLE_ID", "sample_id": "SAMPLE_ID", "url": "URL", "text": "TEXT", "caption": "TEXT",
    "width": "WIDTH", "height": "HEIGHT", "original_width": "WIDTH", "original_height": "HEIGHT",
}  # fmt: skip
_SCORES = {
    "ViT-B-32": "clip_b32_similarity_score",
    "ViT-L-14": "clip_l14_similarity_score",
}


def as_pairmill(table: pa.Table, model: str) -> pa.Table:
    """A release's rows in whatever layout, with the names of Pairmill's: SAMPLE_ID (int64), URL,
    TEXT, WIDTH, HEIGHT, similarity. model: the release's, whose score is the similarity. Raises
    UserError for a layout without ids."""
    scores = {name: "similarity" for of, name in _SCORES.items() if model.startswith(of)}
    names = [_NAMES.get(name.lower()) or scores.get(name, name) for name in table.column_names]
    table = table.rename_columns(names)
    if "SAMPLE_ID" not in names:
        raise UserError(
            "a file of the release has neither SAMPLE_ID nor uid: build it in another layout, or"
            " with --set with_sample_id=true"
        )
    at = names.index("SAMPLE_ID")
    if pa.types.is_integer(table.schema.field(at).type):
        return table
    ids = sample_ids(ids_of(table.column(at), "the release"))
    return table.set_column(at, "SAMPLE_ID", pa.array(ids, pa.int64()))

"""The layouts of a release's files: names, types and nulls of the columns that users of other data
sets load, so that a table of both can be made.

The types are read from those data sets' own files. What a layout has no column for is not written:
a threshold works on a tag all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError
from pairmill.ops.release.keep_list_ids import ids_of, sample_ids
from pairmill.ops.release.layout_columns import (
    AESTHETIC,
    BOXES,
    HASH,
    HEIGHT,
    INTEGER,
    LANGUAGE,
    LANGUAGE_OF_SEVERAL,
    NSFW,
    PUNSAFE,
    PWATERMARK,
    SAMPLE_ID,
    SIMILARITY,
    TEXT,
    URL,
    WIDTH,
    WORDS,
    Column,
    Kept,
    Labels,
    digest_column,
    has_aesthetic,
    license_or_mark,
    no_boxes,
    null_column,
    plain,
    score_by,
    several_languages,
    similarity_column,
    tag_column,
    uids,
)
from pairmill.ops.release.recipe import Recipe


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
            chosen += [tag_column(name) for name in recipe.tags if name not in names]
            chosen += [similarity_column(f"similarity_{name}") for name in recipe.similarities]
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


LAYOUTS = {
    layout.name: layout
    for layout in (
        ReleaseLayout(
            "pairmill",
            (
                SAMPLE_ID, URL, WORDS, HEIGHT, WIDTH, plain("license", TEXT, "LICENSE"),
                LANGUAGE, NSFW, SIMILARITY, HASH, digest_column("md5", 16), PUNSAFE, PWATERMARK,
                AESTHETIC,
            ),
            "SAMPLE_ID",
            tags=True,
        ),
        # LAION-400M; with LANGUAGE laion2B-multi
        ReleaseLayout(
            "laion-400m",
            (
                SAMPLE_ID, URL, WORDS, HEIGHT, WIDTH, Column("LICENSE", TEXT, license_or_mark),
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
                tag_column("aesthetic", "aesthetic", has_aesthetic),
            ),
            None,
        ),
        # improved_aesthetics_6plus and its like, whose sizes are float64
        ReleaseLayout(
            "laion-aesthetics-v2",
            (
                URL, WORDS, plain("width", pa.float64(), "WIDTH"),
                plain("height", pa.float64(), "HEIGHT"), SIMILARITY, PUNSAFE, PWATERMARK,
                tag_column("aesthetic", "AESTHETIC_SCORE"), HASH,
            ),
            None,
        ),
        # what is known of Re-LAION's columns, and the joined files' others in lower case
        ReleaseLayout(
            "re-laion",
            (
                plain("url", TEXT, "url"), plain("text", TEXT, "caption"),
                plain("width", INTEGER, "width"), plain("height", INTEGER, "height"),
                SIMILARITY, plain("language", TEXT, "language", several_languages),
                HASH, PUNSAFE, PWATERMARK,
            ),
            None,
        ),
        ReleaseLayout(
            "datacomp",
            (
                Column("uid", TEXT, uids), plain("url", TEXT, "url"),
                plain("text", TEXT, "text"),
                plain("width", pa.int64(), "original_width"),
                plain("height", pa.int64(), "original_height"),
                Column("clip_b32_similarity_score", pa.float32(), score_by("ViT-B-32")),
                Column("clip_l14_similarity_score", pa.float32(), score_by("ViT-L-14")),
                Column("face_bboxes", BOXES, no_boxes), digest_column("sha256", 32),
            ),
            "uid",
        ),
        # captions are another model's work, of which a release has none yet
        ReleaseLayout(
            "laion-coco",
            (
                URL, WORDS, null_column("top_caption", TEXT),
                null_column("all_captions", pa.list_(TEXT)),
                null_column("all_similarities", pa.list_(pa.float64())),
                WIDTH, HEIGHT, SIMILARITY, HASH, PWATERMARK, PUNSAFE,
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

"""The parameters of a folder of shards: all that its bytes hang on, kept in it as fetch.json."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.fetch.boxes import column_boxes
from pairmill.ops.fetch.keys import keys_from
from pairmill.ops.fetch.samples import HASHES, Layout, as_rows, names_of, text_of
from pairmill.ops.fetch.shards import Folder, writing
from pairmill.ops.fetch.sources import Source, SourceColumns, fingerprint, listed
from pairmill.workers.download.crawl import Boxes
from pairmill.workers.download.rendition import RenditionSpec

FILE = "fetch.json"


@dataclass(frozen=True)
class Parameters:
    """source: its fingerprint. names: of its columns. key, boxes: names of columns, or None.
    verify: whether an image of another hash than the source's is a failure."""

    source: str
    names: tuple[str, ...]
    columns: SourceColumns
    key: str | None
    boxes: str | None
    rendition: RenditionSpec
    layout: Layout
    shard_rows: int
    verify: bool

    @classmethod
    def of(
        cls,
        source: Source,
        columns: SourceColumns,
        rendition: RenditionSpec,
        layout: Layout,
        *,
        key: str | None,
        boxes: str | None,
        shard_rows: int,
        verify: bool,
    ) -> "Parameters":
        """Raises UserError for a column that is not there, and for ``verify`` without a hash."""
        if verify:
            hashes = [name for name in source.names if name.lower() in HASHES]
            without = [source.lacking(name) for name in hashes] or [source.name]
            if all(without):
                raise UserError(f"--verify needs a column md5 or sha256, and {without[0]} has none")
        return cls(
            fingerprint(source),
            tuple(source.names),
            columns,
            _column(source, key, "--key-col"),
            _column(source, boxes, "--bbox-col"),
            rendition,
            layout,
            shard_rows,
            verify,
        )

    def as_json(self) -> dict[str, Any]:
        """By the names of the options. Memory is none of them: a retry may have more."""
        spec, layout = self.rendition, self.layout
        return {
            "source": self.source,
            "url": self.columns.url,
            "caption": self.columns.caption,
            "key_col": self.key,
            "bbox_col": self.boxes,
            "resize_mode": spec.mode,
            "image_size": spec.size,
            "enlarge": spec.enlarge,
            "encode_format": spec.format,
            "encode_quality": spec.quality,
            "skip_reencode": spec.skip_reencode,
            "min_image_size": spec.min_side,
            "max_image_area": spec.max_area,
            "max_aspect_ratio": spec.max_aspect,
            "extract_exif": spec.exif,
            "output_format": layout.output_format,
            "shard_rows": self.shard_rows,
            "shard_digits": layout.digits,
            "verify": self.verify,
        }

    def check(self, folder: Folder, *, begun: bool) -> None:
        """Raises UserError for a folder of something else, or begun with other parameters; with
        ``begun``, also for a folder that is not begun yet."""
        path = folder.path / FILE
        try:
            earlier = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if folder.path.is_dir() and any(p.name[0] != "." for p in folder.path.iterdir()):
                raise UserError(
                    f"{folder.path} is not empty, and not of `pairmill fetch`"
                ) from None
            if begun:
                raise UserError(
                    f"nothing was fetched into {folder.path} yet: run without --retry-failed first"
                ) from None
            return
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        if not isinstance(earlier, dict):
            raise UserError(f"cannot read {path}: it is no JSON object")
        for name, value in self.as_json().items():
            if earlier.get(name) == value:
                continue
            said = "" if name == "source" else f": {earlier.get(name)}, not {value}"
            raise UserError(
                f"{folder.path} was begun with another {name.replace('_', ' ')}{said};"
                " give the same, or name another folder"
            )

    def write(self, folder: Folder) -> None:
        text = json.dumps(self.as_json() | {"written_by": f"pairmill {__version__}"}, indent=2)
        half = folder.path / f".{FILE}"
        with writing(folder.path):
            half.write_text(text + "\n", "utf-8")
            half.replace(folder.path / FILE)

    def rows(self, table: pa.Table) -> pa.Table:
        """The rows of a shard from a table of the source."""
        return as_rows(table, self.columns, self.layout.reserved)

    def keys_of(self, rows: pa.Table) -> tuple[list[str | None], dict[int, str]] | None:
        """The keys that the source gives, and faults by index, or None where it gives none."""
        if self.key is None:
            return None
        values = text_of(rows, self._ours(self.key)).to_pylist()
        return keys_from(values, fold=self.layout.output_format == "files")

    def boxes_of(self, rows: pa.Table) -> list[Boxes | None]:
        """What is blurred in each row's image; None where that cannot be known."""
        if self.boxes is None:
            return [()] * rows.num_rows
        return column_boxes(rows[self._ours(self.boxes)])

    def _ours(self, name: str) -> str:
        return dict(names_of(self.names, self.columns, self.layout.reserved))[name]


def _column(source: Source, wanted: str | None, option: str) -> str | None:
    """A column by its name, else by its name in any case. Every file of the source must have it: a
    face without a box would not be blurred."""
    if wanted is None:
        return None
    same = [name for name in source.names if name.lower() == wanted.lower()]
    if not same:
        has = listed(source.names)
        raise UserError(f"{source.name} has no column {wanted}, name another by {option}: {has}")
    found = wanted if wanted in same else same[0]
    if file := source.lacking(found):
        raise UserError(f"{file} has no column {found}, and other files of {source.name} have")
    return found

"""Reading an export of embeddings in clip-retrieval's layout."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError

PAIRS = pa.schema([("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string())])
HEADER = 128  # bytes of a .npy file without rows, which numpy does not map
BLOCK = 20_000  # rows at once: of 512 dims, float16, 20 MB


@dataclass(frozen=True)
class ExportBlock:
    """Some rows. keys: uint64[n], SAMPLE_IDs. images, texts: float16[n, dims], mapped from the
    disk. first: the number of the first row, of the rows asked for."""

    first: int
    keys: npt.NDArray[np.uint64]
    images: npt.NDArray[np.float16]
    texts: npt.NDArray[np.float16]


class ExportReader:
    """The export in a folder. Raises UserError if it is none, or one of another layout.

    identity: the sha256 of its manifest, which names each file's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            text = (folder / "manifest.json").read_bytes()
            manifest: dict[str, Any] = json.loads(text)
            layout = manifest["format"]
            self.dims, self.rows = int(manifest["dims"]), int(manifest["rows"])
            self.model, self.release = dict(manifest["model"]), dict(manifest["release"])
            names = [f["name"] for f in manifest["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{folder} is neither a release nor an export of embeddings, as"
                " `pairmill embeddings export` makes one"
            ) from None
        if layout != "clip-retrieval":
            raise UserError(
                f"{folder} has the layout {layout}; an index is made of clip-retrieval's"
            )
        self.identity = hashlib.sha256(text).hexdigest()
        first = "img_emb/img_emb_"
        self._numbers = [n.removeprefix(first)[:-4] for n in names if n.startswith(first)]

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[ExportBlock]:
        """Rows start to stop. Raises UserError for a file that is missing or damaged."""
        for number, low, high, first in self._files(start, self.rows if stop is None else stop):
            try:
                keys = pq.read_table(self._metadata(number), columns=["SAMPLE_ID"])["SAMPLE_ID"]
                held = keys.to_numpy().astype(np.uint64)
                images, texts = (
                    _mapped(self.folder / f"{kind}_emb" / f"{kind}_emb_{number}.npy")
                    for kind in ("img", "text")
                )
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                raise UserError(f"the export {self.folder} is damaged: {error}") from None
            if {images.shape, texts.shape} != {(len(held), self.dims)}:
                raise UserError(
                    f"the export {self.folder} is damaged: the files of shard {number} have other"
                    f" rows or dims than its metadata"
                )
            for at in range(low, high, BLOCK):
                rows = slice(at, min(at + BLOCK, high))
                yield ExportBlock(first + at - low, held[rows], images[rows], texts[rows])

    def pairs(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """SAMPLE_ID, URL and TEXT of rows start to stop, as PAIRS has them."""
        for number, low, high, _ in self._files(start, stop):
            at = 0
            try:
                with pq.ParquetFile(self._metadata(number)) as file:
                    for batch in file.iter_batches(BLOCK, columns=["SAMPLE_ID", "url", "caption"]):
                        some = batch.slice(max(0, low - at), max(0, high - max(low, at)))
                        at += len(batch)
                        if len(some):
                            table = pa.Table.from_batches([some])
                            table = table.select(["SAMPLE_ID", "url", "caption"])
                            yield from table.rename_columns(PAIRS.names).cast(PAIRS).to_batches()
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                raise UserError(f"the export {self.folder} is damaged: {error}") from None

    def _metadata(self, number: str) -> Path:
        return self.folder / "metadata" / f"metadata_{number}.parquet"

    def _files(self, start: int, stop: int) -> Iterator[tuple[str, int, int, int]]:
        """Number of each file that has some of the rows start to stop, the first and last (not
        itself) of them in the file, and how many of them come before."""
        before = 0
        for number in self._numbers:
            try:
                rows = pq.read_metadata(self._metadata(number)).num_rows
            except (OSError, ValueError, pa.ArrowException) as error:
                raise UserError(f"the export {self.folder} is damaged: {error}") from None
            low, high = max(start - before, 0), min(stop - before, rows)
            if low < high or (not rows and start <= before <= stop):
                yield number, low, high, before + low - start
            before += rows
        if stop == self.rows != before:
            raise UserError(
                f"the export {self.folder} is damaged: it has {before:,} rows, and its manifest"
                f" says {self.rows:,}"
            )


def _mapped(path: Path) -> npt.NDArray[np.float16]:
    array: npt.NDArray[np.float16] = np.load(
        path, mmap_mode="r" if path.stat().st_size > HEADER else None
    )
    return array

"""Reading an export of embeddings in clip-retrieval's layout."""

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


@dataclass(frozen=True)
class ExportShard:
    """The rows of one .npy file. keys: uint64[n], SAMPLE_IDs. images, texts: float16[n, dims],
    mapped from the disk. pairs: rows of PAIRS."""

    keys: npt.NDArray[np.uint64]
    images: npt.NDArray[np.float16]
    texts: npt.NDArray[np.float16]
    pairs: pa.Table


class ExportReader:
    """The export in a folder. Raises UserError if it is none, or one of another layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
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
        first = "img_emb/img_emb_"
        self._numbers = [n.removeprefix(first)[:-4] for n in names if n.startswith(first)]

    def shards(self) -> Iterator[ExportShard]:
        """Raises UserError for a file that is missing or damaged."""
        for number in self._numbers:
            try:
                shard = self._shard(number)
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                raise UserError(f"the export {self.folder} is damaged: {error}") from None
            shapes = {(shard.pairs.num_rows, self.dims), shard.images.shape, shard.texts.shape}
            if len(shapes) != 1:
                raise UserError(
                    f"the export {self.folder} is damaged: the files of shard {number} have other"
                    f" rows or dims than its metadata"
                )
            yield shard

    def _shard(self, number: str) -> ExportShard:
        table = pq.read_table(
            self.folder / "metadata" / f"metadata_{number}.parquet",
            columns=["SAMPLE_ID", "url", "caption"],
        )
        return ExportShard(
            keys=table["SAMPLE_ID"].to_numpy().astype(np.uint64),
            images=_mapped(self.folder / "img_emb" / f"img_emb_{number}.npy"),
            texts=_mapped(self.folder / "text_emb" / f"text_emb_{number}.npy"),
            pairs=table.rename_columns(PAIRS.names).cast(PAIRS),
        )


def _mapped(path: Path) -> npt.NDArray[np.float16]:
    array: npt.NDArray[np.float16] = np.load(
        path, mmap_mode="r" if path.stat().st_size > HEADER else None
    )
    return array

"""The two layouts of an export of embeddings: files of arrays, beside Parquet of the same rows."""

import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError

Vectors = npt.NDArray[np.float16]  # [rows, dims]
PREFIXES = {"ViT-L-14": "l14", "ViT-B-32": "b32"}


def npz_prefix(model: str) -> str:
    """DataComp's name of a model: it knows two. Raises UserError for another."""
    for name, prefix in PREFIXES.items():
        if model == name or model.startswith(f"{name}-quickgelu"):
            return prefix
    raise UserError(
        f"DataComp has names for the embeddings of ViT-B-32 (b32) and ViT-L-14 (l14), and the"
        f" release's model is {model}: name them with --prefix"
    )


class Npy:
    """A .npy file of float16[rows, dims], written in pieces."""

    def __init__(self, path: Path, dims: int) -> None:
        self.path = path
        self._dims = dims
        self._rows = 0
        self._file = path.open("wb")
        self._header = self._write_header()

    def write(self, vectors: Vectors) -> None:
        self._file.write(np.ascontiguousarray(vectors, "<f2").data)
        self._rows += len(vectors)

    def close(self) -> None:
        # numpy leaves room in the header for an array that grows: its length is the same
        if not self._file.closed:
            self._file.seek(0)
            if self._write_header() != self._header:
                raise RuntimeError(f"the header of {self.path} has grown")
            self._file.close()

    def _write_header(self) -> int:
        shape = (self._rows, self._dims)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        return self._file.tell()


class ArrayWriter(ABC):
    """Writes embeddings shard by shard, a shard for each file of the release.

    files: the files written so far, each with its rows.
    """

    name: str

    def __init__(self, folder: Path, dims: int) -> None:
        self.folder = folder
        self.dims = dims
        self.files: list[tuple[Path, int]] = []
        self._number = 0
        self._parquet: pq.ParquetWriter | None = None

    @abstractmethod
    def paths(self, number: int) -> tuple[Path, Path, Path]:
        """The paths of a shard: .npy of the images, .npy of the texts, Parquet."""

    @abstractmethod
    def metadata(self, pairs: pa.Table) -> pa.Table:
        """The layout's Parquet columns for rows of a release."""

    def finish(self, image: Path, text: Path, rows: int) -> None:
        """Called when both arrays of a shard are closed."""
        self.files += [(image, rows), (text, rows)]

    @contextmanager
    def shard(self) -> Iterator[None]:
        """Open the next shard, for calls of ``write``."""
        image, text, self._pairs = self.paths(self._number)
        for path in (image, text, self._pairs):
            path.parent.mkdir(exist_ok=True)
        self._images, self._texts = Npy(image, self.dims), Npy(text, self.dims)
        self._rows = 0
        try:
            yield
        finally:
            self._close()
        self.finish(image, text, self._rows)
        self.files.append((self._pairs, self._rows))
        self._number += 1

    def write(self, pairs: pa.Table, images: Vectors, texts: Vectors) -> None:
        """Append rows of a release and their embeddings; called at least once a shard."""
        table = self.metadata(pairs)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(
                self._pairs, table.schema, compression="zstd", compression_level=3
            )
        if table.num_rows:  # no empty row groups
            self._parquet.write_table(table)
        self._images.write(images)
        self._texts.write(texts)
        self._rows += table.num_rows

    def _close(self) -> None:
        self._images.close()
        self._texts.close()
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None


class ClipRetrieval(ArrayWriter):
    """As clip_retrieval/clip_inference/writer.py: the number has as many digits as the count has,
    since readers pair the folders' files by sorting their names; image_path and caption are its own
    columns, and the rest is what a data set brings. image_path is the SAMPLE_ID, in decimal."""

    name = "clip-retrieval"

    def __init__(self, folder: Path, dims: int, count: int) -> None:
        super().__init__(folder, dims)
        self._digits = len(str(count))

    def paths(self, number: int) -> tuple[Path, Path, Path]:
        n = str(number).zfill(self._digits)
        return (
            self.folder / "img_emb" / f"img_emb_{n}.npy",
            self.folder / "text_emb" / f"text_emb_{n}.npy",
            self.folder / "metadata" / f"metadata_{n}.parquet",
        )

    def metadata(self, pairs: pa.Table) -> pa.Table:
        own = {
            "image_path": pairs["SAMPLE_ID"].cast(pa.string()),
            "caption": pairs["TEXT"],
            "url": pairs["URL"],
        }
        rest = {n: pairs[n] for n in pairs.schema.names if n not in ("TEXT", "URL")}
        return pa.table(own | rest)


class Npz(ArrayWriter):
    """As DataComp's metadata: uid is 32 hexadecimal digits, here of the SAMPLE_ID. face_bboxes and
    the image's sha256 are there where the release has them: where its layout is ``datacomp``."""

    name = "npz"

    def __init__(self, folder: Path, dims: int, prefix: str) -> None:
        super().__init__(folder, dims)
        self._prefix = prefix

    def paths(self, number: int) -> tuple[Path, Path, Path]:
        name = f"part-{number:05}"
        return (
            self.folder / f".{name}.img.npy",
            self.folder / f".{name}.txt.npy",
            self.folder / f"{name}.parquet",
        )

    def metadata(self, pairs: pa.Table) -> pa.Table:
        own = {
            "uid": pa.array([f"{sample:032x}" for sample in pairs["SAMPLE_ID"].to_pylist()],
                            pa.string()),
            "url": pairs["URL"],
            "text": pairs["TEXT"],
            "original_width": pairs["WIDTH"].cast(pa.int64()),
            "original_height": pairs["HEIGHT"].cast(pa.int64()),
        }  # fmt: skip
        if "similarity" in pairs.column_names:
            score = pc.cast(pairs["similarity"], pa.float32())
            own[f"clip_{self._prefix}_similarity_score"] = score
        taken = ("URL", "TEXT", "WIDTH", "HEIGHT", "similarity")
        rest = {n: pairs[n] for n in pairs.schema.names if n not in taken}
        return pa.table(own | rest)

    def finish(self, image: Path, text: Path, rows: int) -> None:
        """An .npz is a zip archive of .npy files; its entries' time is 1980, as numpy's is."""
        path = self.folder / f"part-{self._number:05}.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for kind, array in (("img", image), ("txt", text)):
                with (
                    array.open("rb") as source,
                    archive.open(f"{self._prefix}_{kind}.npy", "w", force_zip64=True) as target,
                ):
                    shutil.copyfileobj(source, target, 1 << 20)
                array.unlink()
        self.files.append((path, rows))

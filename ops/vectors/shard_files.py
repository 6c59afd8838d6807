"""The files of a shard, whatever its structure: what its rows are.

keys.npy          uint64[vectors], ascending: SAMPLE_ID of each distinct vector. The structure that
                  is asked knows a vector by its row here
duplicates.npy    uint64[n, 2], SAMPLE_ID and KEY of samples that have the vector of another;
duplicates_by_key.npy  the same the other way round
hashes.npy        uint64[vectors] in order, and hash_rows.npy, int64[vectors], the row of each: an
                  equal vector is found in another shard without a search
pairs.arrow       SAMPLE_ID, URL, TEXT (Arrow's IPC file, mapped: a row is read without its group)
removed.npy       uint64[n], sorted: samples deleted since; no answer has them
embeddings.npy    float16[vectors, dims] (ivfpq; hnsw has them in its graph)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.duplicates import Duplicates, is_in
from pairmill.ops.vectors.export_reader import PAIRS
from pairmill.ops.vectors.index_info import Keys, Rows, put
from pairmill.ops.vectors.pair_texts import PairTexts

PAIRS_FILE, REMOVED_FILE = "pairs.arrow", "removed.npy"
EMBEDDINGS_FILE = "embeddings.npy"
BATCH = 50_000  # rows of pairs.arrow at once


class PairsWriter:
    """Writes pairs.arrow, in the order of SAMPLE_ID."""

    def __init__(self, path: Path) -> None:
        self._writer = pa.ipc.new_file(path, PAIRS)
        self._waiting: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def write_rows(folder: Path, keys: Keys, duplicates: Duplicates, digests: Keys) -> None:
    """The files of a shard's rows. digests: uint64[vectors], the
    first halves of ``duplicates.hashes``, in the order of ``keys``."""
    order = np.argsort(digests, kind="stable")
    np.save(folder / "keys.npy", keys)
    np.save(folder / "duplicates.npy", duplicates.by_id)
    np.save(folder / "duplicates_by_key.npy", duplicates.by_key)
    np.save(folder / "hashes.npy", digests[order])
    np.save(folder / "hash_rows.npy", order.astype(np.int64))
    write_removed(folder, np.zeros(0, np.uint64))


def write_removed(folder: Path, removed: Keys) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, removed)

    put(folder / REMOVED_FILE, write)


def write_pairs_left(folder: Path, removed: Keys, target: Path) -> None:
    """pairs.arrow without the rows of ``removed``."""
    gone = pa.array(removed.astype(np.int64))
    writer = PairsWriter(target)
    try:
        for batch in _pairs(folder).to_batches():
            writer.write(batch.filter(pc.invert(pc.is_in(batch["SAMPLE_ID"], gone))))
    finally:
        writer.close()


class RowFiles:
    """The rows of a shard, opened: mapped files, and what is removed as it is now.

    keys: as in the file. dead: int64[n], sorted, rows that stand for no sample any more. Raises
    UserError for a file that is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            # plain arrays of the mapped memory: a memmap makes one of itself in each slice, 6 us
            self.keys = _plain(folder / "keys.npy")
            self._duplicates = Duplicates(
                _plain(folder / "duplicates.npy"), _plain(folder / "duplicates_by_key.npy")
            )
            self._hashes = _plain(folder / "hashes.npy")
            self._hash_rows: Rows = _plain(folder / "hash_rows.npy")
            self._pairs = _pairs(folder)
            self.removed = np.load(folder / REMOVED_FILE)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"the shard {folder} is damaged: {error}; build the index anew"
            ) from None
        self.require(len(self._hashes))
        self.require(len(self._hash_rows))
        self._texts = PairTexts(self._pairs)
        self.dead, self._heirs = self._after_removals()

    def _after_removals(self) -> tuple[Rows, dict[int, int]]:
        """The rows without a sample, and for rows whose key is removed the sample of another."""
        gone = self.removed[is_in(self.removed, self.keys)]
        dead, heirs = [], {}
        for key, row in zip(gone, np.searchsorted(self.keys, gone), strict=True):
            others = self._duplicates.of_key(int(key))
            left = others[~is_in(others, self.removed)]
            if len(left):
                heirs[int(row)] = int(left[0])
            else:
                dead.append(int(row))
        return np.array(dead, np.int64), heirs

    def require(self, vectors: int) -> None:
        """Raises UserError where there is another number of vectors."""
        if vectors != len(self.keys):
            raise UserError(
                f"the shard {self.folder} is damaged: its files have other numbers of rows; build"
                " the index anew"
            )

    def alive(self) -> int:
        """Distinct vectors that stand for a sample."""
        return len(self.keys) - len(self.dead)

    def samples(self) -> Keys:
        """The SAMPLE_IDs that are left, in order: uint64[n]."""
        held = np.sort(np.concatenate([self.keys, self._duplicates.by_id[:, 0]]))
        return held[~is_in(held, self.removed)]

    def duplicates_left(self) -> Duplicates:
        """The duplicates after removals, under the keys that stand for the rows now."""
        ids, keys = self._duplicates.by_id[:, 0], self._duplicates.by_id[:, 1]
        left = ~is_in(ids, self.removed)
        ids, keys = np.array(ids[left]), np.array(keys[left])
        for row, heir in self._heirs.items():
            keys[keys == self.keys[row]] = heir
        return Duplicates.of(ids[ids != keys], keys[ids != keys])

    def rows(self, ids: Keys) -> Rows:
        """The row of each sample's vector, int64[n]; -1 where it is not in the shard."""
        if not len(self.keys):
            return np.full(len(ids), -1, np.int64)
        keys = self._duplicates.keys_of(ids)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        here = (self.keys[at] == keys) & ~is_in(ids, self.removed)
        found: Rows = np.where(here, at, -1)
        return found

    def keys_of(self, rows: Rows) -> Keys:
        """The sample that stands for each row, which is alive: uint64[n]."""
        keys: Keys = self.keys[rows]
        if self._heirs:
            for i, row in enumerate(rows):
                keys[i] = self._heirs.get(int(row), keys[i])
        return keys

    def of_row(self, row: int) -> list[int]:
        """The samples with a row's vector, in order."""
        key = self.keys[row]
        held = np.concatenate([[key], self._duplicates.of_key(int(key))]).astype(np.uint64)
        return [int(each) for each in np.sort(held[~is_in(held, self.removed)])]

    def with_hash(self, digest: int) -> Rows:
        """Rows whose vector may be one with this hash, int64[n]."""
        low, high = (
            int(np.searchsorted(self._hashes, np.uint64(digest), side))
            for side in ("left", "right")
        )
        found: Rows = self._hash_rows[low:high]
        return found

    def pairs(self, ids: Keys) -> Iterator[tuple[int, tuple[str, str]]]:
        """SAMPLE_ID, URL and TEXT of those that are here. ids: below 2^63."""
        return self._texts.of(ids[self.rows(ids) >= 0].astype(np.int64))


def mapped(path: Path) -> Any:
    """A .npy file, mapped."""
    return np.load(path, mmap_mode="r")


def _plain(path: Path) -> Any:
    return mapped(path).view(np.ndarray)


def _pairs(folder: Path) -> pa.Table:
    with pa.memory_map(str(folder / PAIRS_FILE)) as file:
        table = pa.ipc.open_file(file).read_all()
    if table.schema != PAIRS:
        raise ValueError(f"{PAIRS_FILE} has other columns")
    return table


def bytes_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if not path.name.startswith("."))

"""Tags of samples as releases have them: which rows may be shown, and in which releases they are.

In memory, so that a search need not read Parquet for each of its candidates: 13 bytes a row, 17
where a release has a column of violence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.release.folder import ReleaseFolder, read_release
from pairmill.ops.release.keep_list_ids import id_column, ids_of

LABELS = ("", "UNLIKELY", "UNSURE", "NSFW")  # of LAION's NSFW column; "": no label
SAFE_LABEL = LABELS.index("UNLIKELY")
UNSAFE_ABOVE = 0.5  # of punsafe and violence, as clip-retrieval drops them
Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReleaseTags:
    """Tags of one release's rows. ids: int64[n], SAMPLE_IDs, sorted. labels: uint8[n], numbers in
    LABELS. punsafe: float32[n], NaN where there is none. violence: the same, or None where the
    release has no such column."""

    name: str
    ids: Ids
    labels: npt.NDArray[np.uint8]
    punsafe: Floats
    violence: Floats | None

    @property
    def tagged(self) -> bool:
        """Whether any row has a tag that says whether it is safe."""
        return bool(self.labels.any() or np.isfinite(self.punsafe).any())

    def at(self, ids: Ids) -> tuple[npt.NDArray[np.int64], Flags]:
        """Of each id its row, and whether it has one."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return rows, self.ids[rows] == ids


@dataclass(frozen=True)
class KnnTags:
    """The tags of several releases."""

    releases: tuple[ReleaseTags, ...] = ()

    @property
    def tagged(self) -> bool:
        return any(release.tagged for release in self.releases)

    @property
    def has_violence(self) -> bool:
        return any(release.violence is not None for release in self.releases)

    def safe(self, ids: Ids) -> Flags:
        """Whether each sample is known to be safe: bool[n]. A release must say so, by NSFW
        (UNLIKELY) or punsafe (0.5 at most), and none may say otherwise; without a tag: False."""
        good, bad = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        for release in self.releases:
            rows, there = release.at(ids)
            if not there.any():
                continue
            labels, punsafe = release.labels[rows], release.punsafe[rows]
            with np.errstate(invalid="ignore"):
                good |= there & ((labels == SAFE_LABEL) | (punsafe <= UNSAFE_ABOVE))
                bad |= there & ((labels > SAFE_LABEL) | (punsafe > UNSAFE_ABOVE))
        return good & ~bad

    def peaceful(self, ids: Ids) -> Flags:
        """The same of violence: bool[n]; True of all where no release has a column ``violence``."""
        if not self.has_violence:
            return np.ones(len(ids), bool)
        good, bad = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        for release in self.releases:
            if release.violence is None:
                continue
            rows, there = release.at(ids)
            if there.any():
                values = release.violence[rows]
                with np.errstate(invalid="ignore"):
                    good |= there & (values <= UNSAFE_ABOVE)
                    bad |= there & (values > UNSAFE_ABOVE)
        return good & ~bad

    def columns(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Of each sample ``releases``, the names of those that it is in, and ``NSFW`` and
        ``punsafe`` of the first that has them."""
        found: list[dict[str, Any]] = [{} for _ in ids]
        self.add_columns(ids, found)
        return found

    def add_columns(self, ids: Sequence[int], rows: Sequence[dict[str, Any]]) -> None:
        """Put the columns of each sample into its row."""
        asked = np.array(ids, np.int64)
        for row in rows:
            row["releases"] = []
        for release in self.releases:
            at, there = release.at(asked)
            at = at[there]
            labels = release.labels[at].tolist()
            # of float64, as the digits that a float32 has
            punsafe = np.round(release.punsafe[at].astype(np.float64), 6).tolist()
            held = np.flatnonzero(there).tolist()
            for i, label, number in zip(held, labels, punsafe, strict=True):
                row = rows[i]
                row["releases"].append(release.name)
                if label and "NSFW" not in row:
                    row["NSFW"] = LABELS[label]
                if isfinite(number) and "punsafe" not in row:
                    row["punsafe"] = number


def release_tags(found: ReleaseFolder) -> ReleaseTags:
    """Read the tags of a release. Raises UserError for one without SAMPLE_IDs, or a damaged
    file."""
    ids: list[Ids] = []
    labels: list[npt.NDArray[np.uint8]] = []
    numbers: dict[str, list[Floats]] = {"punsafe": [], "violence": []}
    try:
        for part in found.parts:
            _read(part, ids, labels, numbers)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the release {found.folder} is damaged: {error}") from None
    joined = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    order = np.argsort(joined, kind="stable")
    violence = np.concatenate(numbers["violence"])[order] if numbers["violence"] else None
    return ReleaseTags(
        name_of(found),
        joined[order],
        np.concatenate(labels)[order] if labels else np.zeros(0, np.uint8),
        np.concatenate(numbers["punsafe"])[order] if ids else np.zeros(0, np.float32),
        None if violence is None or not np.isfinite(violence).any() else violence,
    )


def name_of(found: ReleaseFolder) -> str:
    """A release's name, for answers: that of its folder, since a recipe makes many."""
    return found.folder.resolve().name


def _read(
    part: Path,
    ids: list[Ids],
    labels: list[npt.NDArray[np.uint8]],
    numbers: dict[str, list[Floats]],
) -> None:
    with pq.ParquetFile(part) as file:
        # in lower case, as other layouts than ours write them
        names: dict[str, str] = {name.lower(): name for name in file.schema_arrow.names}
        own = id_column(list(names.values()))
        if own is None:
            raise UserError(
                f"{part} has neither SAMPLE_ID nor uid, so its tags belong to nobody: write the"
                " release with with_sample_id, or leave it out"
            )
        wanted = [own, *(names[name] for name in ("nsfw", *numbers) if name in names)]
        for batch in file.iter_batches(batch_size=1 << 16, columns=wanted):
            rows = batch.num_rows
            halves = ids_of(batch.column(own), str(part))
            ids.append(halves["f1"].astype(np.int64))
            labels.append(_labels(batch.column(names["nsfw"])) if "nsfw" in names else _none(rows))
            for name, values in numbers.items():
                if name in names:
                    column = batch.column(names[name]).cast(pa.float32()).fill_null(np.nan)
                    values.append(column.to_numpy(zero_copy_only=False))
                else:
                    values.append(np.full(rows, np.nan, np.float32))


def _none(rows: int) -> npt.NDArray[np.uint8]:
    return np.zeros(rows, np.uint8)


def _labels(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Numbers in LABELS; a word that is none of them is not safe: the last one's."""
    coded = column.cast(pa.string()).dictionary_encode()
    words = [word.upper() for word in coded.dictionary.to_pylist()]
    known = [LABELS.index(word) if word in LABELS else len(LABELS) - 1 for word in words]
    codes = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    numbers: npt.NDArray[np.uint8] = np.array([*known, 0], np.uint8)[codes]
    return numbers


class TaggedReleases:
    """The releases' tags, read again where a folder's manifest was written anew.

    folders: releases. trouble: called with a sentence where one cannot be read any more; what was
    read before goes on. Raises UserError where one cannot be read at first.
    """

    def __init__(self, folders: Sequence[Path], trouble: Callable[[str], None]) -> None:
        self.folders, self._trouble = list(folders), trouble
        self._read: dict[Path, tuple[tuple[int, int], ReleaseTags]] = {}
        self.tags = KnnTags()
        self._refresh(first=True)

    def refresh(self) -> None:
        """Read what has changed. Blocks as long as that takes."""
        self._refresh(first=False)

    def _refresh(self, *, first: bool) -> None:
        changed = False
        for folder in self.folders:
            signature = _signature(folder)
            if folder in self._read and self._read[folder][0] == signature:
                continue
            try:
                self._read[folder] = signature, release_tags(read_release(folder))
                changed = True
            except UserError as error:
                if first:
                    raise
                self._trouble(f"{error}; its tags are those that were read before")
        if changed:
            self.tags = KnnTags(tuple(self._read[f][1] for f in self.folders))


def _signature(folder: Path) -> tuple[int, int]:
    try:
        found = (folder / "_release.parquet").stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino

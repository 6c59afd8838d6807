"""Images in a tar for webdataset, or in a folder of files, without samples that a keep-list lacks.

A sample is all members of one key, the name up to its first dot. Its id is the SAMPLE_ID or uid in
its JSON, or in the shard's Parquet file, or its key, where that is a uid, or where the user says
that keys are ids: img2dataset's own keys are numbers as well.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.release.keep_list import KeepList
from pairmill.ops.release.keep_list_ids import HEX, NAMES, as_ids, id_column, id_of, ids_of
from pairmill.ops.release.keep_list_rows import synced

KEY = re.compile(r"((?:.*/)?[^/.]+)\.[^/]*")  # as webdataset's base_plus_ext
COPY = 4 << 20
RECORD = 20 * 512  # bytes: the length of a tar is a multiple
JSON_BYTES = 1 << 24


def dropped_keys(
    tar: Path, keep: KeepList, by_key: Mapping[str, bool], *, keys_are_ids: bool
) -> tuple[int, set[str]]:
    """The number of a tar's samples, and the keys of those that go.

    by_key: whether a key stays, as the shard's Parquet file has it; its word goes before the tar's.
    Raises UserError for a sample without an id.
    """
    ids: dict[str, tuple[int, int] | None] = {}
    with _opened(tar) as archive:
        for member in _members(archive, tar):
            key = key_of(member.name)
            if key is None:
                continue
            base = key.rpartition("/")[2]
            ids.setdefault(key, _id_of_key(base, keys_are_ids=keys_are_ids))
            if base not in by_key and member.name == f"{key}.json":
                ids[key] = _id_in_json(archive, member) or ids[key]
    unknown = [key for key, found in ids.items()
               if found is None and key.rpartition("/")[2] not in by_key]  # fmt: skip
    if unknown:
        raise UserError(
            f"{tar}: the sample {unknown[0]} has no SAMPLE_ID and no uid, in its JSON or a Parquet"
            " file beside it; where its keys are SAMPLE_IDs, say --keys-are-ids"
        )
    named = [key for key in ids if key.rpartition("/")[2] not in by_key]
    kept = keep.keeps(as_ids([ids[key] or (0, 0) for key in named]))
    stays = dict(zip(named, kept.tolist(), strict=True))
    gone = {key for key in ids if not stays.get(key, by_key.get(key.rpartition("/")[2]))}
    return len(ids), gone


def key_of(name: str) -> str | None:
    """The key of a member; None for a name without a dot."""
    found = KEY.fullmatch(name)
    return found[1] if found else None


def keys_of(parquet: Path, keep: KeepList) -> dict[str, bool]:
    """Whether each key of a shard's Parquet file stays; {} where it has no keys, or no ids."""
    try:
        with pq.ParquetFile(parquet) as file:
            names = file.schema_arrow.names
            column = id_column(names)
            if column is None or "key" not in names:
                return {}
            table = file.read([column, "key"])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {parquet}: {error}") from None
    kept = keep.keeps(ids_of(table[column], str(parquet)))
    pairs = zip(table["key"].cast(pa.string()).to_pylist(), kept.tolist(), strict=True)
    return {key: stays for key, stays in pairs if key is not None}


def _id_of_key(key: str, *, keys_are_ids: bool) -> tuple[int, int] | None:
    return id_of(key) if keys_are_ids or HEX.fullmatch(key) else None


def _id_in_json(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int] | None:
    file = archive.extractfile(member) if member.size <= JSON_BYTES else None
    try:
        values: Any = json.loads(file.read()) if file else {}
    except (ValueError, RecursionError):
        return None
    return id_in(values)


def id_in(values: Any) -> tuple[int, int] | None:
    """The id in a sample's JSON, or None."""
    if not isinstance(values, dict):
        return None
    name = id_column([key for key in values if key.lower() in NAMES])
    return id_of(values[name]) if name else None


def filter_tar(source: Path, target: Path, gone: set[str]) -> None:
    """Copy a tar without the samples of these keys: every other member's bytes as they are."""
    with _opened(source) as archive, source.open("rb") as file, synced(target) as out:
        for member in _members(archive, source):
            if key_of(member.name) in gone:
                continue
            end = member.offset_data + -(-length_of(member) // 512) * 512
            file.seek(member.offset)  # of what stands before the header, too: a long name, times
            left = end - member.offset
            while left:
                body = file.read(min(COPY, left))
                if not body:
                    raise UserError(f"{source} ends early")
                out.write(body)
                left -= len(body)
        out.write(bytes(1024))
        out.write(bytes(-out.tell() % RECORD))


def delete_files(folder: Path, gone: set[str]) -> None:
    """Delete the files of these keys from a shard that is a folder."""
    for path in sorted(folder.iterdir()):
        if key_of(path.name) in gone:
            path.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members, one in memory at a time. Raises UserError where the archive is damaged: tarfile
    takes a header that it cannot read for the end, and the rest would be lost without a word."""
    size = path.stat().st_size
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        if member.offset_data + length_of(member) > size or member.issparse():
            raise UserError(f"{path} is damaged, or has a member that is not read: {member.name}")
        yield member
    with path.open("rb") as file:
        file.seek(archive.offset)
        if any(file.read(512)):
            raise UserError(f"{path} is damaged after byte {file.tell() - 512:,}")


def length_of(member: tarfile.TarInfo) -> int:
    """Bytes of a member's data in the tar: a link has a size, and none."""
    return member.size if member.isreg() else 0

"""The files of a source: on this machine or behind fsspec, compressed or not, as bytes or text."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast
from urllib.parse import unquote

import pyarrow as pa

from pairmill.ops.errors import UserError, extra

KINDS = ("parquet", "csv", "tsv", "txt", "json", "jsonl")
OTHER_NAMES = {"ndjson": "jsonl"}
SAMPLE = 1 << 20  # bytes by which a text's encoding is told
READ = 1 << 16
BOMS = (  # UTF-32's first: it begins as UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def _zstd(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))


# ending -> how such a file begins, and how it is read; a file that is cut raises
COMPRESSED: dict[str, tuple[bytes, Callable[[BinaryIO], Any]]] = {
    "gz": (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    "bz2": (b"BZh", bz2.BZ2File),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    "zst": (b"\x28\xb5\x2f\xfd", _zstd),
}
UNREADABLE = (
    pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError,
)  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A file of a source. name: for people. path: on ``system``, fsspec's, or on this machine where
    that is None."""

    name: str
    path: str
    system: Any = None

    @property
    def own_name(self) -> str:
        """The name without its folders, and without a URL's query."""
        return _own_name(self.path)

    def open(self) -> BinaryIO:
        if self.system is None:
            return Path(self.path).open("rb")
        return cast(BinaryIO, self.system.open(self.path, "rb"))

    def size(self) -> int | None:
        """Bytes; None where a server does not say."""
        if self.system is None:
            return Path(self.path).stat().st_size
        return cast("int | None", self.system.info(self.path).get("size"))


@contextmanager
def reading(file: SourceFile) -> Iterator[None]:
    """For reads of a file: its errors become a UserError. Behind fsspec they are of any class."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if file.system is None and not isinstance(error, UNREADABLE):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {file.name}: {said}") from None


def _own_name(name: str) -> str:
    if name.startswith(("http://", "https://")):
        name = name.partition("?")[0].partition("#")[0]
    return name.rstrip("/").rpartition("/")[2]


def kind_of(name: str) -> str | None:
    """One of KINDS, by a file's ending, in any case; None for another file."""
    parts = _own_name(name).lower().split(".")[1:]
    if parts and parts[-1] in COMPRESSED:
        parts.pop()
        if parts and parts[-1] == "parquet":  # compressed within, and read from its end
            return None
    kind = OTHER_NAMES.get(parts[-1], parts[-1]) if parts else ""
    return kind if kind in KINDS else None


def find_files(given: str) -> tuple[str, list[SourceFile]]:
    """The kind and the files of a source, in order of name: a file, or those of a folder. Raises
    UserError where there are none, or some of several kinds."""
    given = _local(given)
    if "://" in given:
        found = _remote(given)
    else:
        path = Path(given)
        if not path.exists():
            raise UserError(f"there is no {path}")
        # as Spark and pyarrow pass over them; in a release, one has the manifest
        inside = [p for p in path.iterdir() if p.is_file()] if path.is_dir() else None
        found = [SourceFile(str(p), str(p)) for p in ([path] if inside is None else inside)]
        if inside is None:
            return _of_one(found[0]), found
    if isinstance(found, SourceFile):
        return _of_one(found), [found]
    return _of_folder(given, found)


def _local(given: str) -> str:
    """The path of a file: URL (RFC 8089), as it stands or as it is decoded; else what is given."""
    if not given.startswith("file://"):
        return given
    path = given.removeprefix("file://")
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    return path if Path(path).exists() else unquote(path)


def _of_one(file: SourceFile) -> str:
    if kind := kind_of(file.path):
        return kind
    endings = ", ".join(f".{kind}" for kind in KINDS)
    raise UserError(
        f"{file.name} is no folder, {endings} (all but .parquet also .{', .'.join(COMPRESSED)})"
    )


def _of_folder(given: str, files: list[SourceFile]) -> tuple[str, list[SourceFile]]:
    by_kind: dict[str, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.own_name):
        kind = kind_of(file.path)
        if kind and not file.own_name.startswith((".", "_")):
            by_kind.setdefault(kind, []).append(file)
    if not by_kind:
        raise UserError(
            f"{given} has no .parquet files in it, nor .{', .'.join(KINDS[1:])}; folders in it are"
            " not looked into"
        )
    if "parquet" in by_kind:  # statistics and the like lie beside them
        return "parquet", by_kind["parquet"]
    if len(by_kind) > 1:
        raise UserError(f"{given} has files of several kinds, {', '.join(by_kind)}: name one file")
    return next(iter(by_kind.items()))


def _remote(url: str) -> SourceFile | list[SourceFile]:
    """A file, or the files of a folder, behind fsspec."""
    with extra("remote"):
        import fsspec
    try:
        system, path = fsspec.core.url_to_fs(url)
        if system.info(path)["type"] != "directory":
            return SourceFile(url, path, system)
        listed = system.ls(path, detail=True)
    except FileNotFoundError:
        raise UserError(f"there is no {url}") from None
    except ImportError as error:  # its words name the package: "Install s3fs to access S3"
        raise UserError(f"cannot read {url}: {error}") from None
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {url}: {said}") from None
    return [
        SourceFile(f"{url.rstrip('/')}/{_own_name(each['name'])}", each["name"], system)
        for each in listed
        if each["type"] == "file"
    ]


@contextmanager
def _decompressed(file: SourceFile) -> Iterator[BinaryIO]:
    """By what the file is: a name says little of what a server has unpacked."""
    with io.BufferedReader(cast(Any, file.open()), READ) as raw:
        head = raw.peek(6)[:6]
        for begins, opened in COMPRESSED.values():
            if head.startswith(begins):
                with opened(raw) as inside:
                    yield inside
                return
        ending = file.own_name.lower().rpartition(".")[2]
        if ending in COMPRESSED:  # a file that is cut before its first byte has no rows either
            raise UserError(f"cannot read {file.name}: it does not begin as a .{ending} does")
        yield raw


class _Again(io.RawIOBase):
    """A stream from its beginning, of which a part was read."""

    def __init__(self, read: bytes, rest: BinaryIO) -> None:
        self._read, self._rest = memoryview(read), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._read:
            self._read = memoryview(self._rest.read(READ))
        part, self._read = self._read[: len(buffer)], self._read[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@contextmanager
def text(file: SourceFile, *, any_newline: bool = False) -> Iterator[TextIO]:
    """A file as text: UTF-8, with or without a byte order mark, or UTF-16 or -32 with one. Octets
    that are not UTF-8 become lone surrogates, see ``Remarks``. any_newline: a CR alone ends a
    line too; else it does so only in a file without LF.

    Raises UserError for text that is in another encoding, by its first MiB.
    """
    with _decompressed(file) as data:
        sample = b""
        while len(sample) < SAMPLE and (more := data.read(SAMPLE - len(sample))):
            sample += more
        encoding = next((name for mark, name in BOMS if sample.startswith(mark)), "utf-8")
        if encoding in ("utf-8", "utf-8-sig"):
            _check_utf8(file, sample)
        newline = None if any_newline else "\n" if b"\n" in sample or b"\r" not in sample else "\r"
        again = io.BufferedReader(_Again(sample, data), READ)
        yield io.TextIOWrapper(again, encoding, errors="surrogateescape", newline=newline)


def _check_utf8(file: SourceFile, sample: bytes) -> None:
    """Odd octets in a line cost that line. But where most lines that tell anything are not UTF-8,
    the file is not, and every such caption would be wrong."""
    if sample.count(0) > len(sample) // 4:
        raise UserError(
            f"{file.name} is not UTF-8, but as it seems UTF-16: convert it first, as by iconv"
        )
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return
    except UnicodeDecodeError:
        pass
    good, bad = 0, []
    for number, line in enumerate(sample.split(b"\n"), 1):
        if line.isascii():
            continue
        try:
            line.decode()
            good += 1
        except UnicodeDecodeError:
            bad.append(number)
    if len(sample) == SAMPLE and bad and bad[-1] == number:
        bad.pop()  # it is cut
    if len(bad) > good:
        raise UserError(
            f"{file.name} is not UTF-8, see its line {bad[0]}: convert it first, as by"
            " iconv -f WINDOWS-1252 -t UTF-8"
        )

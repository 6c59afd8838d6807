"""WAT files as an admin names them: paths, folders, patterns and URLs; and lists of them."""

import gzip
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from pairmill.ops.errors import UserError
from pairmill.workers.http.remote_file import RequestFailed, open_remote_file

BASE = "https://data.commoncrawl.org/"
BUCKET = "s3://commoncrawl/"  # the same files
_ENDINGS = (".wat", ".wat.gz")


def _scheme(given: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", given)
    return found[1].lower() if found else ""


def is_remote(given: str) -> bool:
    return _scheme(given) not in ("", "file")


def located(given: Sequence[str], base: Path | None = None) -> list[str]:
    """The locations of the files that these paths, folders, patterns and URLs mean, each once.

    Paths are made absolute and without links, since workers run elsewhere than this command; they
    are relative to ``base``. A folder means the WAT files in it. Raises UserError, which names what
    is not there.
    """
    found: dict[str, None] = {}
    missing = []
    for one in given:
        if is_remote(one):
            if _scheme(one) not in ("http", "https", "s3"):
                raise UserError(f"{one} cannot be read: {_scheme(one)} is not supported")
            found[one] = None
            continue
        files = _files(_path(one, base))
        missing += [] if files else [one]
        found.update((str(file.resolve()), None) for file in files)
    if missing:
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise UserError(f"there is no file {', '.join(missing[:5])}{more}; nothing was added")
    return list(found)


def _path(given: str, base: Path | None) -> Path:
    if _scheme(given) == "file":
        return Path(unquote(urlsplit(given).path))
    return (base or Path.cwd()) / given


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.name.endswith(_ENDINGS) and p.is_file())
    pattern = path.relative_to(path.anchor)
    return sorted(p for p in Path(path.anchor).glob(str(pattern)) if p.is_file())


def same_file(location: str) -> str:
    """The other name of a file of Common Crawl, which has a bucket and a web server; else empty."""
    for one, other in ((BASE, BUCKET), (BUCKET, BASE)):
        if location.startswith(one):
            return other + location.removeprefix(one)
    return ""


def read_list(source: str, limit: int | None = None) -> list[str]:
    """The locations in a list of WAT files, plain or gzipped, a line each; # begins a remark.

    A line is a URL; or a path, relative to the list; or, as in Common Crawl's own lists, begins
    with crawl-data/, and is found there unless it is a path that exists. Raises UserError.
    """
    data = _read(source)
    lines = [line.strip() for line in data.decode("utf-8", "surrogateescape").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")][:limit]
    if not lines:
        raise UserError(f"the list of WAT files {source} is empty")
    if is_remote(source):
        return located([urljoin(BASE if _is_theirs(line) else source, line) for line in lines])
    folder = _path(source, None).resolve().parent
    return located(
        [BASE + line.lstrip("/") if _is_theirs(line) and not (folder / line).exists() else line
         for line in lines],
        folder,
    )  # fmt: skip


def _is_theirs(line: str) -> bool:
    return bool(re.match(r"/?crawl-data/", line))


def _read(source: str) -> bytes:
    try:
        if is_remote(source):
            if _scheme(source) not in ("http", "https"):
                raise UserError(f"the list of WAT files {source} is no path and no http(s) URL")
            with open_remote_file(source, proxies=True) as listing:
                data = b"".join(iter(partial(listing.read, 1 << 20), b""))
        else:
            data = _path(source, None).read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, ValueError, RequestFailed) as error:
        raise UserError(f"cannot read the list of WAT files {source}: {error}") from None

"""Lists of removals in the formats of those who give them: one adapter a format.

The formats of IWF, C3P and the like are not public; what is known of them is that they are CSV with
columns of hashes, or Project VIC's JSON. Tests have examples that were made for them.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pairmill.ops.admin.removal_entries import Entry, hash_entry, parse, pdq_entry, url_entry
from pairmill.ops.errors import UserError

# of the lines of a file: its entries
Adapter = Callable[[Iterable[str]], Iterator[Entry]]
Reader = Callable[[str], Entry]


def _named(kind: str) -> Reader:
    return lambda value: parse(f"{kind}:{value}")


def _hash(kind: str) -> Reader:
    return lambda value: hash_entry(kind, value)


def _host(value: str) -> Entry:
    if parse(value).kind != "host":
        raise UserError(f"{value[:200]!r} is no host")
    return parse(value)


def _prefix(value: str) -> Entry:
    return parse(value if value.endswith("*") else value + "*")


def _url(value: str) -> Entry:
    """Also one that ends with *, which stands for nothing else here."""
    if "://" not in value:
        raise UserError(f"{value[:200]!r} is no URL: it begins with http:// or https://")
    return url_entry(value)


READERS: dict[str, Reader] = {
    "url": _url, "prefix": _prefix, "host": _host, "md5": _hash("md5"), "sha1": _hash("sha1"),
    "sha256": _hash("sha256"), "pdq": pdq_entry, "dhash": _named("dhash"),
    "sampleid": _named("sample"),
}  # fmt: skip
# names of columns without capitals, blanks, hyphens and underscores
COLUMNS = {name: name for name in READERS} | {
    "uri": "url", "urlprefix": "prefix", "domain": "host", "md5hash": "md5", "sha1hash": "sha1",
    "sha256hash": "sha256", "pdqhash": "pdq", "hashmd5": "md5", "hashsha1": "sha1",
    "hashsha256": "sha256", "hashpdq": "pdq",
}  # fmt: skip
# ThreatExchange's types of what can be no image's
OF_VIDEOS = frozenset(("HASH_VIDEO_MD5", "HASH_TMK", "HASH_VPDQ", "HASH_TEXT_TLSH", "RAW_TEXT"))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def lines(text: Iterable[str]) -> Iterator[Entry]:
    """One entry a line, as `pairmill removal add` takes it; # begins a comment."""
    for number, line in enumerate(text, 1):
        entry = line.strip().removeprefix("\ufeff")
        if entry and not entry.startswith("#"):
            with _At(f"line {number}"):
                yield parse(entry)


def with_columns(text: Iterable[str]) -> Iterator[Entry]:
    """CSV, or TSV, with a first line of names: url, prefix, host, md5, sha1, sha256, pdq, dhash,
    sample_id; quality is of the PDQ. Each cell is an entry; columns of other names are passed
    over, and a row without an entry is an error."""
    rows, first = _table(text)
    names = [_plain(name) for name in first]
    known = [(place, COLUMNS[name]) for place, name in enumerate(names) if name in COLUMNS]
    if not known:
        raise UserError(f"line 1: none of its columns is one of {', '.join(READERS)}")
    quality = [place for place, name in enumerate(names) if name in ("quality", "pdqquality")]
    while True:
        with _At(f"line {rows.line_num + 1}"):
            row = next(rows, None)
        if row is None:
            return
        if not row:
            continue
        with _At(f"line {rows.line_num}"):
            if len(row) != len(first):
                raise UserError(f"it has {len(row)} columns, and the first line {len(first)}")
            cells = [(kind, row[place].strip()) for place, kind in known if row[place].strip()]
            if not cells:
                raise UserError("it names nothing")
            for kind, value in cells:
                if kind == "pdq" and quality and row[quality[0]].strip():
                    yield pdq_entry(value, _number(row[quality[0]]))
                else:
                    yield READERS[kind](value)


def _table(text: Iterable[str]) -> tuple[Any, list[str]]:
    """A reader behind the first line, and that line."""
    given = iter(text)
    head = next(given, "").removeprefix("\ufeff")
    separator = "\t" if "\t" in head else ";" if ";" in head and "," not in head else ","

    def all_lines() -> Iterator[str]:
        yield head
        yield from given

    rows = csv.reader(all_lines(), delimiter=separator, strict=True)
    try:
        return rows, next(rows, [])
    except csv.Error as error:
        raise UserError(f"line 1: {error}") from None


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text.strip()):
        raise UserError(f"{text[:200]!r} is no quality: 0 to 100")
    return int(text)


def vics(text: Iterable[str]) -> Iterator[Entry]:
    """Project VIC's Video Image Classification Standard: JSON, {"value": [{"MediaID": 1, "MD5": …,
    "SHA1": …}]}. Every category is taken; PhotoDNA is passed over."""
    for name, record in _records(text, "value"):
        with _At(name):
            found = [(kind, record[key]) for key in record for kind in _kinds(key) if record[key]]
            if not found:
                raise UserError("it has no MD5, SHA1, SHA256 or PDQ")
            for kind, value in found:
                yield READERS[kind](_text(value))


def _kinds(key: str) -> list[str]:
    kind = COLUMNS.get(_plain(key))
    return [kind] if kind in ("md5", "sha1", "sha256", "pdq") else []


def threatexchange(text: Iterable[str]) -> Iterator[Entry]:
    """ThreatExchange's indicators: JSON, {"data": [{"indicator": …, "type": "HASH_PDQ"}]}, or one
    record a line. Types of videos and texts are passed over."""
    for name, record in _records(text, "data"):
        with _At(name):
            told = record["indicator"] if isinstance(record.get("indicator"), dict) else record
            kind, value = _text(told.get("type")).upper(), _text(told.get("indicator"))
            if kind in OF_VIDEOS:
                continue
            if _plain(kind) not in COLUMNS:
                raise UserError(f"{kind[:100]!r} is no type that can be removed")
            yield READERS[COLUMNS[_plain(kind)]](value)


def spawning(text: Iterable[str]) -> Iterator[Entry]:
    """Answers of a registry of opt-outs by URL, as Spawning's: JSON, {"urls": [{"url": …, "optOut":
    true}]}, or one record a line. What did not opt out is no removal."""
    for name, record in _records(text, "urls"):
        with _At(name):
            refused = record.get("optOut", record.get("opt_out"))
            if not isinstance(refused, bool):
                raise UserError("it has no optOut that is true or false")
            if refused:
                yield _url(_text(record.get("url")))


def _records(text: Iterable[str], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON document's list, or of JSON lines, each with its place."""
    whole = "".join(text).removeprefix("\ufeff")
    try:
        found = json.loads(whole)
    except ValueError as error:
        if "\n" not in whole.strip():
            raise UserError(f"it is no JSON: {error}") from None
        found = None
    if isinstance(found, dict):
        if _goes_on(found):
            raise UserError(
                "it is one page of several, and a part would stand for the whole list: join the"
                f" records of all pages under {key!r}"
            )
        found = found.get(key, [found])
    given: Iterator[tuple[str, Any]]
    if isinstance(found, list):
        given = ((f"record {number}", record) for number, record in enumerate(found, 1))
    elif found is None:
        given = _json_lines(whole)
    else:
        raise UserError(f"it is JSON, and has no list {key!r}")
    for name, record in given:
        if not isinstance(record, dict):
            raise UserError(f"{name}: it is no JSON object")
        yield name, record


def _goes_on(page: dict[str, Any]) -> bool:
    """Whether an answer names the next one: as ThreatExchange does, or OData, which VICS is of."""
    paging = page.get("paging")
    return bool(page.get("@odata.nextLink") or (isinstance(paging, dict) and paging.get("next")))


def _json_lines(whole: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(whole.splitlines(), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise UserError(f"line {number}: it is no JSON: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"a text was expected, and it is {str(value)[:100]!r}")
    return value.strip()


class _At:
    """Says in an error where it was."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError | csv.Error):
            raise UserError(f"{self._place}: {error}") from None


ADAPTERS: dict[str, Adapter] = {
    "lines": lines, "csv": with_columns, "vics": vics, "threatexchange": threatexchange,
    "spawning": spawning,
}  # fmt: skip

"""Filters of a release's rows: typed values of a query string, and conditions of DuckDB with them
as parameters. No text of a visitor's is ever SQL, a pattern or a regular expression."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.duck import quoted
from pairmill.ops.web.explore.release_rows import OpenRelease
from pairmill.ops.web.explore.text_words import text_condition
from pairmill.workers.safe_text import safe

CHOICES = {"language": "language", "licence": "licence", "nsfw": "NSFW"}
RANGES = {
    "width": "width", "height": "height", "aspect": "width / height", "similarity": "similarity",
    "aesthetic": "aesthetic", "punsafe": "punsafe", "pwatermark": "pwatermark",
}  # fmt: skip
NONE = "none"  # of a choice: the rows that have no value
MOST_CHOICES, MOST_TEXT, MOST_HOST = 50, 300, 253
PAGE, MOST_PAGE = 50, 200
OTHERS = {"sort", "after", "limit", "format"}
KNOWN_AS = {"license": "licence", "languages": "language", "NSFW": "nsfw", "q": "text"}


@dataclass(frozen=True)
class Range:
    """Inclusive bounds; None: there is none."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RowFilter:
    """choices: values by role, one of which a row has. ranges: by role, or by the column of a
    tagger. host: its rows and those of the hosts below it. text: words that a text has, all."""

    choices: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ranges: tuple[tuple[str, Range], ...] = ()
    host: str = ""
    text: str = ""

    def query(self) -> list[tuple[str, str]]:
        """The parameters of which this is parsed."""
        found = [(name, value) for name, values in self.choices for value in values]
        for name, bounds in self.ranges:
            for end, value in (("min", bounds.low), ("max", bounds.high)):
                if value is not None:
                    found.append((f"{end}_{name}", f"{value:.12g}"))
        found += [("host", self.host)] if self.host else []
        return found + ([("text", self.text)] if self.text else [])

    def without(self, name: str) -> "RowFilter":
        """Without one of its conditions."""
        return replace(
            self,
            choices=tuple(each for each in self.choices if each[0] != name),
            ranges=tuple(each for each in self.ranges if each[0] != name),
            host="" if name == "host" else self.host,
            text="" if name == "text" else self.text,
        )


@dataclass(frozen=True)
class AskedRows:
    """A listing as it was asked for. sort: a column, with - before it from the greatest on; after:
    the last row's value and SAMPLE_ID of the page before."""

    filter: RowFilter
    sort: str = "id"
    after: tuple[float, int] | None = None
    limit: int = PAGE

    def link(self, after: str = "") -> str:
        """The query string of the same listing, from a row on."""
        more = [("sort", self.sort)] if self.sort != "id" else []
        more += [("limit", str(self.limit))] if self.limit != PAGE else []
        more += [("after", after)] if after else []
        return urlencode(self.filter.query() + more)


@dataclass(frozen=True)
class Condition:
    """name: the filter's. sql: with $names of ``values``. positions: a query for the positions of
    its rows, where there is one that needs no scan."""

    name: str
    said: str
    sql: str
    values: dict[str, Any]
    positions: str = ""


def parse(query: Sequence[tuple[str, str]], release: OpenRelease) -> AskedRows:
    """What a query string asks of a release; fields without a value ask for nothing. Raises
    UserError, naming the field, for one that is unknown, twice, or of another type."""
    shape = release.shape
    tags = {tag.lower(): tag for tag in shape.tags}
    choices: dict[str, list[str]] = {}
    ranges: dict[str, Range] = {}
    others: dict[str, str] = {}
    for given, raw in query:
        value, name = raw.strip(), KNOWN_AS.get(given, given)
        end, _, of = name.partition("_")
        if not value:
            continue
        if name in CHOICES:
            choices.setdefault(_column(name, release), []).append(_text(name, value, 200))
        elif end in ("min", "max") and (of in RANGES or of in tags):
            if of in RANGES:
                _column(of, release)
            ranges[of] = _bounded(name, end, value, ranges.get(of, Range()))
        elif name in ("host", "text") or name in OTHERS:
            if name in others:
                raise UserError(f"{name} is given twice")
            others[name] = value
        else:
            raise UserError(f"there is no filter {safe(given, 40)!r}: {_known(release)}")
    if any(len(values) > MOST_CHOICES for values in choices.values()):
        raise UserError(f"more than {MOST_CHOICES} values of one filter")
    wanted = RowFilter(
        tuple((name, tuple(dict.fromkeys(values))) for name, values in sorted(choices.items())),
        tuple(sorted(ranges.items(), key=lambda each: each[0])),
        _host(others.get("host", "")),
        _text("text", others.get("text", ""), MOST_TEXT),
    )
    if wanted.text and not shape.get("text"):
        raise UserError("text: this release has no column of texts")
    sort = others.get("sort", "id")
    if sort.removeprefix("-") not in sorts(release):
        raise UserError(f"sort: rows are ordered by {', '.join(sorts(release))}, or -NAME")
    return AskedRows(wanted, sort, _after(others.get("after", "")), _limit(others.get("limit", "")))


def sorts(release: OpenRelease) -> dict[str, str]:
    """What rows can be ordered by, with its SQL."""
    shape = release.shape
    found = {"id": "_id"}
    found |= {name: shape.sql(name) for name in RANGES if name != "aspect" and shape.get(name)}
    if shape.get("width") and shape.get("height"):
        found["pixels"] = f"{shape.sql('width')}::bigint * {shape.sql('height')}"
    return found | {tag: quoted(tag) for tag in shape.tags}


def conditions(wanted: RowFilter, release: OpenRelease) -> list[Condition]:
    """Of a filter's parts, each by itself."""
    shape = release.shape
    found: list[Condition] = []
    for role, values in wanted.choices:
        named = {f"{role}{n}": value for n, value in enumerate(values) if value != NONE}
        parts = [f"{shape.sql(role)} in ({', '.join(f'${each}' for each in named)})"] * bool(named)
        parts += [f"{shape.sql(role)} is null"] * (NONE in values)
        said = f"{CHOICES[role]} is {' or '.join(values)}"
        found.append(Condition(role, said, f"({' or '.join(parts)})", named))
    tags = {tag.lower(): tag for tag in shape.tags}
    for number, (name, bounds) in enumerate(wanted.ranges):
        column = shape.sql(name) if name in RANGES else quoted(tags[name])
        if name == "aspect":
            column = f"{shape.sql('width')} / nullif({shape.sql('height')}, 0)"
        ends = ((">=", "low", bounds.low), ("<=", "high", bounds.high))
        for sign, end, value in ends:
            if value is not None:
                key, said = f"{end}{number}", f"{RANGES.get(name, name)} {sign} {value:g}"
                found.append(Condition(name, said, f"{column} {sign} ${key}", {key: value}))
    if wanted.host:
        sql, given = release.host_condition(wanted.host)
        named = {f"host{n}": value for n, value in enumerate(given)}
        sql = sql.format(*(f"${name}" for name in named))
        found.append(Condition("host", f"host is {wanted.host}", sql, named))
    if wanted.text:
        sql, named, lists = text_condition(wanted.text, release)
        found.append(Condition("text", f"text has {wanted.text}", sql, named, lists))
    return found


def _column(name: str, release: OpenRelease) -> str:
    needed = ("width", "height") if name == "aspect" else (name,)
    for role in needed:
        if not release.shape.get(role):
            raise UserError(f"{name}: this release has no column of it")
    return name


def _bounded(name: str, end: str, value: str, before: Range) -> Range:
    if (before.low if end == "min" else before.high) is not None:
        raise UserError(f"{name} is given twice")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e12:
        raise UserError(f"{name}: {safe(value, 40)!r} is no number")
    return replace(before, low=number) if end == "min" else replace(before, high=number)


def _text(name: str, value: str, most: int) -> str:
    if len(value) > most:
        raise UserError(f"{name}: at most {most} characters")
    if any(0xD800 <= ord(letter) < 0xE000 or letter == "\0" for letter in value):
        raise UserError(f"{name}: it is no text")
    return value


def _host(value: str) -> str:
    host = _text("host", value, MOST_HOST).lower().rstrip(".")
    if host and not all(letter.isalnum() or letter in "-._[]:" for letter in host):
        raise UserError(f"host: {safe(value, 40)!r} is no name of a host, such as example.org")
    return host


def _after(value: str) -> tuple[float, int] | None:
    if not value:
        return None
    first, _, number = value.rpartition("_")
    try:
        at = float(first) if first else 0.0
        found = int(number)
    except ValueError:
        found = -1
    if not 0 <= found < 2**63:
        raise UserError("after: it is no place in a list; begin at the first page")
    return at, found


def _limit(value: str) -> int:
    if not value:
        return PAGE
    if not value.isdecimal() or not 1 <= int(value[:9]) <= MOST_PAGE:
        raise UserError(f"limit: a number from 1 to {MOST_PAGE}")
    return int(value)


def _known(release: OpenRelease) -> str:
    shape = release.shape
    found = [name for name in CHOICES if shape.get(name)]
    found += [f"min_{name}, max_{name}" for name in RANGES if shape.get(name)]
    return ", ".join([*found, "host", "text", "sort", "after", "limit"])

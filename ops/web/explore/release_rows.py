"""A release that is open: its rows by SAMPLE_ID, address, file and host."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.release.statistics import Statistics
from pairmill.ops.web.explore.copied_rows import CopiedRows
from pairmill.ops.web.explore.duck import Duck, quoted
from pairmill.ops.web.explore.release_columns import ReleaseColumns

PARTIAL_ROWS = 1_000_000  # that are searched while there is no working copy
Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a release's rows are in a Duck. table: what is filtered; whole: the rows themselves,
    None where they are in ``copied``; alias: of the working copy, "" where there is none."""

    duck: Duck
    table: str
    whole: str | None = None
    alias: str = ""
    copied: CopiedRows | None = None

    def named(self, table: str) -> str:
        """A further table of the working copy, as SQL."""
        return f"{quoted(self.alias)}.{quoted(table)}"

    def rows_of(self, table: str) -> int:
        count: int = self.duck.rows(f"select count(*) as n from {self.named(table)}")[0]["n"]
        return count


@dataclass(frozen=True)
class OpenRelease:
    """A release as it stands in its folder.

    trouble: why it is not served, a sentence; "" where it is. partial: there is no working copy of
    it yet, and filters and searches look at its first rows alone. copy_trouble: why there is none.
    Rows are dictionaries by the names of the release's columns.
    """

    name: str
    folder: Path
    trouble: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""
    copy_name: str = ""
    count: int = 0
    statistics: Statistics = field(default_factory=dict)
    card: str = ""
    schema: pa.Schema | None = None
    columns: ReleaseColumns | None = None
    parts: tuple[Path, ...] = ()
    copy: Path | None = None
    copy_trouble: str = ""
    place: Place | None = None

    @property
    def partial(self) -> bool:
        return not self.trouble and self.copy is None

    @property
    def searched(self) -> int:
        """Rows that filters look at."""
        if not self.partial:
            return self.count
        files = self.manifest["files"][: len(first_parts(self.parts, self.manifest))]
        return sum(each["rows"] for each in files)

    @property
    def shape(self) -> ReleaseColumns:
        """The columns of a release that is served. Raises UserError for another."""
        if self.columns is None or self.place is None:
            raise UserError(f"the release {self.name} cannot be shown: {self.trouble}")
        return self.columns

    @property
    def at(self) -> Place:
        if self.place is None:
            raise UserError(f"the release {self.name} cannot be shown: {self.trouble}")
        return self.place

    @property
    def relation(self) -> str:
        """What DuckDB filters, as SQL: ``_id``, ``_host`` and the narrow columns."""
        return self.at.table

    def row(self, sample_id: int) -> Row | None:
        return self.rows([sample_id]).get(sample_id)

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """The rows with these SAMPLE_IDs, those that there are."""
        place, shape = self.at, self.shape
        wanted = [number for number in dict.fromkeys(ids) if 0 <= number < 2**63]
        if place.copied is not None:
            return place.copied.by_id(wanted)
        if not wanted:
            return {}
        listed = ", ".join(str(int(number)) for number in wanted)
        if shape.hexadecimal_id:
            listed = ", ".join(f"'{number:032x}'" for number in wanted)
        query = f"select * from {place.whole} where {shape.sql('id')} in ({listed})"
        return {row.pop("_id"): _told(row) for row in place.duck.rows(query)}

    def at_positions(self, positions: Sequence[int]) -> list[tuple[int, Row]]:
        """(SAMPLE_ID, row) of positions of the working copy, in their order."""
        copied = self.at.copied
        assert copied is not None
        return copied.at(positions)

    def by_urls(self, urls: Sequence[str]) -> dict[int, Row]:
        """The rows with one of these URLs, character by character."""
        return self._by_values("url", urls)

    def by_hashes(self, *, md5: str = "", sha256: str = "") -> dict[int, Row]:
        """The rows whose image's file has this digest, hexadecimal; 1,000 of them at most."""
        found: dict[int, Row] = {}
        for role, value in (("md5", md5.lower()), ("sha256", sha256.lower())):
            if value and self.shape.get(role):
                found |= self._by_values(role, [value])
        return found

    def _by_values(self, role: str, values: Sequence[str]) -> dict[int, Row]:
        place, shape = self.at, self.shape
        column = shape.by_role[role]
        if place.copied is None:
            query = (
                f"select * from {place.whole} where {quoted(column)} in (select unnest($1))"
                " limit 1000"
            )
            return {row.pop("_id"): _told(row) for row in place.duck.rows(query, [list(values)])}
        query = (
            f"select position from {place.named(role + '_key')} where key in (select hash(value)"
            " from (select unnest($1::varchar[]) as value)) order by 1 limit 1000"
        )
        found = place.duck.rows(query, [list(values)])
        rows = place.copied.at([row["position"] for row in found])
        wanted = set(values)
        return {number: row for number, row in rows if row[column] in wanted}

    def by_host(
        self, host: str, *, limit: int = 50, after: int = -1, subdomains: bool = True
    ) -> tuple[int, list[tuple[int, Row]]]:
        """How many rows have URLs at a host or, with ``subdomains``, below it; and those of them
        whose SAMPLE_ID is greater than ``after``, (SAMPLE_ID, row) by it."""
        place = self.at
        condition, values = self.host_condition(host, subdomains=subdomains)
        table = place.table if place.copied else place.whole
        numbered = {f"h{n}": value for n, value in enumerate(values)}
        named = condition.format(*(f"${name}" for name in numbered))
        count = place.duck.rows(f"select count(*) as n from {table} where {named}", numbered)
        query = f"select _id from {table} where {named} and _id > $after order by _id limit $most"
        ids = place.duck.rows(query, numbered | {"after": after, "most": limit})
        rows = self.rows([row["_id"] for row in ids])
        return count[0]["n"], sorted(rows.items())

    def host_condition(self, host: str, *, subdomains: bool = True) -> tuple[str, list[Any]]:
        """A condition on ``_host`` with {} for each of the values."""
        place, host = self.at, host.lower()
        if place.copied is None:
            if not subdomains:
                return "_host = {}", [host]
            return "(_host = {} or ends_with(_host, {}))", [host, f".{host}"]
        backwards = ".".join(reversed(host.split(".")))
        query = query_text("web", "explore/host_codes").format(host=place.named("host"))
        [found] = place.duck.rows(query, {"host": backwards})
        own = -1 if found["own"] is None else found["own"]
        if not subdomains or found["first"] is None:
            return "_host = {}", [own]
        return "(_host = {} or _host between {} and {})", [own, found["first"], found["last"]]


def _told(row: Row) -> Row:
    del row["_host"]
    return row


def first_parts(parts: Sequence[Path], manifest: dict[str, Any]) -> list[Path]:
    """The first files, up to PARTIAL_ROWS rows, one at least."""
    found: list[Path] = []
    rows = 0
    for part, entry in zip(parts, manifest["files"], strict=True):
        rows += entry["rows"]
        if found and rows > PARTIAL_ROWS:
            break
        found.append(part)
    return found

"""The manifest of a release."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """The manifest of a release: JSON, see ``folder``.

    recipe: every value, overrides applied. model: name, pretrained, digest; multilingual_model: of
    the other one, if there is. taggers: by column. candidates: pairs
    looked at = kept + sum(excluded); excluded: by the first reason, see sql/release.sql.
    removals: count, highest id and sha256 of the list that was applied. unfinished: work that was
    not done, by what, see sql/unfinished.sql; empty where all was done. files: name, rows,
    bytes and sha256 of each. written_by: versions; the bytes depend on pyarrow's. derived_from: the
    release of which rows were dropped, see ``update_manifest.derived``; null: it was built.
    version: of the data, MAJOR.MINOR.PATCH as Croissant counts them (rows that go are a MAJOR one);
    empty: that of the recipe. layout: of the files, see ``layouts``. engine: what ran the passes.
    thresholds: those that the pool decided, by the recipe's key (top_fraction -> 0.2834).
    duplicates: a finding a method, with rows, groups, parameters, recall and precision as measured.
    duplicate_groups: how many groups have so many rows, see ``statistics.group_sizes``.
    facts: the folders that were read, if they are to be named. published: see ``Publication``.
    """

    recipe: dict[str, Any]
    model: dict[str, Any]
    multilingual_model: dict[str, Any] | None
    taggers: dict[str, dict[str, Any]]
    candidates: int
    kept: int
    excluded: dict[str, int]
    kept_by_language: dict[str, int]
    removals: dict[str, Any]
    unfinished: dict[str, int]
    columns: dict[str, str]
    files: list[dict[str, Any]]
    written_by: dict[str, str]
    derived_from: dict[str, Any] | None = None
    version: str = ""
    layout: str = "pairmill"
    engine: str = "duckdb"
    thresholds: dict[str, float] = field(default_factory=dict)
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    duplicate_groups: list[dict[str, int]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

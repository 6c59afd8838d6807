"""The manifest of a release, and its README."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from pairmill.ops.release.unfinished import sentence
from pairmill.workers.safe_text import markdown, safe


@dataclass(frozen=True)
class Manifest:
    """The manifest of a release: JSON, see ``folder``.

    recipe: every value, overrides applied. model: name, pretrained, digest; multilingual_model: of
    the other one, if there is. taggers: by column. candidates: pairs
    looked at = kept + sum(excluded); excluded: by the first reason, see sql/release.sql.
    removals: count, highest id and sha256 of the list that was applied. unfinished: work that was
    not done, by what, see sql/unfinished.sql; empty where all was done. files: name, rows,
    bytes and sha256 of each. written_by: versions; the bytes depend on pyarrow's. derived_from: the
    release of which rows were dropped, see ``kept_rows.derived``; null: it was built.
    version: of the data, MAJOR.MINOR.PATCH as Croissant counts them (rows that go are a MAJOR one);
    empty: that of the recipe. layout: of the files, see ``layouts``. engine: what ran the passes.
    thresholds: those that the pool decided, by the recipe's key (top_fraction -> 0.2834).
    duplicates: a finding a method, with rows, groups, parameters, recall and precision as measured.
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
    facts: list[dict[str, Any]] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def readme(self) -> str:
        """README.md: Markdown, with the head of a Hugging Face dataset card."""
        return _readme(self)


def _readme_models(m: Manifest) -> str:
    lines = []
    if other := m.multilingual_model:
        languages = markdown(", ".join(m.recipe["model_languages"]))
        lines.append(f"Of languages other than {languages}: {_readme_model(other)}.")
    for column, tagger in m.taggers.items():
        licence = f", {markdown(tagger['licence'])}" if tagger["licence"] else ""
        lines.append(
            f"`{_code(column)}`: {markdown(tagger['name'])}, weights sha256"
            f" `{_code(tagger['digest'])}`{licence}."
        )
    return "".join(f"\n{line}\n" for line in lines)


def _readme_model(model: dict[str, Any]) -> str:
    name = markdown(f"{model['name']} {model['pretrained']}")
    return f"{name}, weights sha256 `{_code(model['digest'])}`"


def _code(value: str) -> str:
    """Within a pair of backticks, where no backslash helps."""
    return safe(value).replace("`", "'")


def _readme_unfinished(m: Manifest) -> str:
    return f"\nNot done when it was built: {sentence(m.unfinished)}.\n" if m.unfinished else ""


# of the licences that a Hugging Face card may name; others are "other", with their name
LICENCES = (
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odc-by", "odbl",
    "pddl", "mit", "apache-2.0",
)  # fmt: skip


def _card(m: Manifest) -> str:
    """The head of a Hugging Face dataset card, in YAML; its values are written as JSON."""
    licence = m.recipe["licence"].lower()
    known = licence in LICENCES
    card: dict[str, Any] = {
        "pretty_name": m.recipe["name"],
        "license": licence if known else "other",
        "license_name": None if known else m.recipe["licence"],
        "language": [code for code in m.kept_by_language if re.fullmatch("[a-z]{2,3}", code)],
        "size_categories": [_size_category(m.kept)],
        "configs": [{"config_name": "default", "data_files": "part-*.parquet"}],
    }
    lines = (f"{key}: {json.dumps(value)}\n" for key, value in card.items() if value)
    return f"---\n{''.join(lines)}---\n"


def _size_category(rows: int) -> str:
    """Hugging Face's: n<1K, 1K<n<10K and so on, n>1T."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for power, name in enumerate(names):
        if rows < 10 ** (power + 3):
            return f"{names[power - 1]}<n<{name}" if power else f"n<{name}"
    return f"n>{names[-1]}"


def _readme(m: Manifest) -> str:
    excluded, languages = (
        "\n".join(f"| {markdown(name)} | {number:,} |" for name, number in counts.items())
        for counts in (m.excluded, m.kept_by_language)
    )
    columns = "\n".join(f"| `{_code(name)}` | {kind} |" for name, kind in m.columns.items())
    return f"""{_card(m)}
# {markdown(m.recipe["name"])}, version {m.recipe["version"]}

{markdown(m.recipe["description"])}.

{m.kept:,} of {m.candidates:,} pairs; number of Parquet files: {len(m.files)}.
{_readme_unfinished(m)}
Licence of the metadata: {markdown(m.recipe["licence"])}. The images are not part of this release;
they are under their own copyright, whatever `LICENSE` says of the page that they stood on.

Removals applied: {m.removals["count"]}, list sha256 `{m.removals["sha256"]}`.

Similarity: {_readme_model(m.model)}.
{_readme_models(m)}
| left out because | pairs |
|---|---|
{excluded}

| language kept | pairs |
|---|---|
{languages}

| column | type |
|---|---|
{columns}

The manifest has every threshold and the sha256 of every file: `pairmill release show --json`.
"""

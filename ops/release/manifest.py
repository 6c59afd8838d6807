"""The manifest of a release, and the README beside it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """The manifest of a release: manifest.json.

    recipe: every value, overrides applied. model: name, pretrained, digest; multilingual_model: of
    the other one, if there is. taggers: by column. candidates: pairs
    looked at = kept + sum(excluded); excluded: by the first reason, see sql/release.sql.
    removals: count, highest id and sha256 of the list that was applied. files: name, rows,
    bytes and sha256 of each. written_by: versions; the bytes depend on pyarrow's.
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
    columns: dict[str, str]
    files: list[dict[str, Any]]
    written_by: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def readme(self) -> str:
        """README.md, in Markdown."""
        return _readme(self)


def _readme_models(m: Manifest) -> str:
    lines = []
    if other := m.multilingual_model:
        languages = ", ".join(m.recipe["model_languages"])
        lines.append(
            f"Of languages other than {languages}: {other['name']} {other['pretrained']}, weights"
            f" sha256 `{other['digest']}`."
        )
    for column, tagger in m.taggers.items():
        licence = f", {tagger['licence']}" if tagger["licence"] else ""
        lines.append(f"`{column}`: {tagger['name']}, weights sha256 `{tagger['digest']}`{licence}.")
    return "".join(f"\n{line}\n" for line in lines)


def _readme(m: Manifest) -> str:
    excluded = "\n".join(f"| {reason} | {number:,} |" for reason, number in m.excluded.items())
    languages = "\n".join(
        f"| {language} | {number:,} |" for language, number in m.kept_by_language.items()
    )
    columns = "\n".join(f"| `{name}` | {kind} |" for name, kind in m.columns.items())
    return f"""# {m.recipe["name"]}, version {m.recipe["version"]}

{m.recipe["description"]}.

{m.kept:,} of {m.candidates:,} pairs; number of Parquet files: {len(m.files)}.

Licence of the metadata: {m.recipe["licence"]}. The images are not part of this release; they are
under their own copyright, whatever `LICENSE` says of the page that they stood on.

Removals applied: {m.removals["count"]}, list sha256 `{m.removals["sha256"]}`.

Similarity: {m.model["name"]} {m.model["pretrained"]}, weights sha256 `{m.model["digest"]}`.
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

`manifest.json` has every threshold and the sha256 of every file.
"""

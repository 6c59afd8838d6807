"""The README of a release: Markdown, with the head of a Hugging Face dataset card."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pairmill.ops.release.cards.publication import Publication, publication, version
from pairmill.ops.release.meanings import meaning
from pairmill.ops.release.unfinished import sentence
from pairmill.workers.safe_text import markdown, safe

# of the licences that a Hugging Face card may name; others are "other", with their name
LICENCES = (
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odc-by", "odbl",
    "pddl", "mit", "apache-2.0",
)  # fmt: skip
IMAGE_TASKS = ("text-to-image", "image-to-text", "zero-shot-image-classification")
TEXT_TASKS = ("text-generation",)
Manifest = Mapping[str, Any]


def readme(
    manifest: Manifest,
    schema: pa.Schema,
    statistics: Mapping[str, Any] | None = None,
    *,
    charts: Sequence[str] = (),
    published: Publication | None = None,
) -> str:
    """README.md. schema: of the files. charts: paths of pictures beside it."""
    said = published or publication(manifest)
    recipe = manifest["recipe"]
    sections = [
        f"# {markdown(recipe['name'])}, version {version(manifest)}",
        f"{markdown(recipe['description'])}.",
        _size(manifest),
        _published(said),
        _licence(recipe),
        _removals(manifest["removals"]),
        _origin(manifest.get("derived_from")),
        _models(manifest),
        _thresholds(manifest.get("thresholds") or {}),
        _table(("left out because", "pairs"), manifest["excluded"].items()),
        _duplicates(manifest.get("duplicates") or []),
        _table(("language kept", "pairs"), manifest["kept_by_language"].items()),
        _columns(schema, statistics),
        "\n".join(f"![{_alt(path)}]({path})" for path in charts),
        "The manifest has every threshold and the sha256 of every file: `pairmill release show"
        " --json`. `pairmill release check` compares the files with it, without a database.",
    ]
    return _head(manifest, schema) + "\n" + "\n\n".join(filter(None, sections)) + "\n"


def _head(manifest: Manifest, schema: pa.Schema) -> str:
    """YAML whose values are written as JSON."""
    recipe, files = manifest["recipe"], manifest["files"]
    licence = recipe["licence"].lower()
    known = licence in LICENCES
    of_images = any(meaning(name).role in ("similarity", "width") for name in schema.names)
    codes = [code for code in manifest["kept_by_language"] if re.fullmatch("[a-z]{2,3}", code)]
    card: dict[str, Any] = {
        "pretty_name": recipe["name"],
        "license": licence if known else "other",
        "license_name": None if known else recipe["licence"],
        "language": codes,
        "size_categories": [_size_category(manifest["kept"])],
        "task_categories": list(IMAGE_TASKS if of_images else TEXT_TASKS),
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": parts_pattern(files)}],
            }
        ],
        "dataset_info": {
            "features": [{"name": field.name} | _feature(field.type) for field in schema],
            "splits": [{"name": "train", "num_examples": manifest["kept"]}],
            "download_size": sum(each["bytes"] for each in files),
        },
    }
    lines = (f"{key}: {_yaml(value)}\n" for key, value in card.items() if value)
    return f"---\n{''.join(lines)}---\n"


def _yaml(value: Any) -> str:
    """JSON that is YAML too: of a character beyond 16 bits JSON's escape is two of YAML's, and
    what YAML has for no character, or for a line's end, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parts_pattern(files: Iterable[Mapping[str, Any]]) -> str:
    """The glob of a release's rows, which leaves _release.parquet out."""
    ours = all(each["name"].startswith("part-") for each in files)
    return "part-*.parquet" if ours else "[!_]*.parquet"


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """The type of a column as ``datasets`` writes it into a card."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype", inner)}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind))}


def _size_category(rows: int) -> str:
    """Hugging Face's: n<1K, 1K<n<10K and so on, n>1T."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for power, name in enumerate(names):
        if rows < 10 ** (power + 3):
            return f"{names[power - 1]}<n<{name}" if power else f"n<{name}"
    return f"n>{names[-1]}"


def _size(manifest: Manifest) -> str:
    text = (
        f"{manifest['kept']:,} of {manifest['candidates']:,} pairs; number of Parquet files:"
        f" {len(manifest['files'])}."
    )
    if manifest["unfinished"]:
        text += f"\n\nNot done when it was built: {sentence(manifest['unfinished'])}."
    return text


def _published(said: Publication) -> str:
    parts = [f"by {markdown(said.creator)}" if said.creator else "", said.date_published]
    line = ", ".join(filter(None, parts))
    cited = f"\n\nCite as: {markdown(said.cite_as)}" if said.cite_as else ""
    return f"Published {line}.{cited}" if line else cited.strip()


def _licence(recipe: Mapping[str, Any]) -> str:
    return (
        f"Licence of the metadata: {markdown(recipe['licence'])}. The images are not part of this"
        " release;\nthey are under their own copyright, whatever `LICENSE` says of the page that"
        " they stood on."
    )


def _removals(removals: Any) -> str:
    if isinstance(removals, Mapping):
        told = ", ".join(f"{markdown(key)} `{_code(value)}`" for key, value in removals.items())
    else:
        told = f"version `{_code(removals)}`"
    return f"Removals applied: {told}." if removals else ""


def _origin(derived_from: Mapping[str, Any] | None) -> str:
    if not derived_from:
        return ""
    name = markdown(f"{derived_from.get('name', '')}, version {derived_from.get('version', '')}")
    digest = _code(derived_from.get("manifest_sha256", ""))
    return f"Rows of {name}, without those that had to go; its manifest has the sha256 `{digest}`."


def _models(manifest: Manifest) -> str:
    lines = [f"Similarity: {_model(manifest['model'])}."] if named(manifest["model"]) else []
    if other := manifest["multilingual_model"]:
        languages = markdown(", ".join(manifest["recipe"]["model_languages"]))
        lines.append(f"Of languages other than {languages}: {_model(other)}.")
    for column, tagger in manifest["taggers"].items():
        licence = f", {markdown(tagger['licence'])}" if tagger["licence"] else ""
        lines.append(
            f"`{_code(column)}`: {markdown(tagger['name'])}, weights sha256"
            f" `{_code(tagger['digest'])}`{licence}."
        )
    return "\n\n".join(lines)


def named(model: Mapping[str, Any] | None) -> bool:
    """Whether there is a model: a recipe of links alone has none."""
    return bool(model and model["name"])


def _model(model: Mapping[str, Any]) -> str:
    name = markdown(f"{model['name']} {model['pretrained']}")
    return f"{name}, weights sha256 `{_code(model['digest'])}`"


def _thresholds(thresholds: Mapping[str, float]) -> str:
    told = ", ".join(f"`{_code(key)}` {value:.6g}" for key, value in thresholds.items())
    return f"Thresholds that the pool decided: {told}." if told else ""


def _duplicates(findings: Sequence[Mapping[str, Any]]) -> str:
    """A row a method; recall and precision as bench/dedupe.py measured them on planted pairs."""
    rows = [
        (each.get("method", ""), *(_number(each.get(key)) for key in FINDING)) for each in findings
    ]
    return _table(("duplicates by", *FINDING), rows) if rows else ""


FINDING = ("rows", "groups", "recall", "precision")


def _number(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else markdown(value)


def _columns(schema: pa.Schema, statistics: Mapping[str, Any] | None) -> str:
    known = (statistics or {}).get("columns", {})
    rows = []
    for field in schema:
        about = known.get(field.name, {})
        span = f"{about['min']:.6g} to {about['max']:.6g}" if "min" in about else ""
        if meaning(field.name).role in ("id", "row_hash"):
            span = ""  # a range of keys says nothing
        nulls = f"{about['nulls']:,}" if about else ""
        text = meaning(field.name).description
        rows.append((f"`{_code(field.name)}`", str(field.type), nulls, span, markdown(text)))
    return _table(("column", "type", "nulls", "range", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for first, *others in rows:
        cells = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in others]
        name = first if str(first).startswith("`") else markdown(first)
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _code(value: Any) -> str:
    """Within a pair of backticks, where no backslash helps."""
    return safe(value).replace("`", "'").replace("|", "¦")


def _alt(path: str) -> str:
    return markdown(path.rsplit("/", 1)[-1].removesuffix(".svg"))

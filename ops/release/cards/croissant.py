"""A release as Croissant 1.1 with the RAI 1.0 vocabulary: JSON-LD for tools and catalogues.

Sources: the specifications croissant-spec-1.1.md and croissant-rai-spec.md of MLCommons.
mlcroissant reads and validates it; its context is whole, so that nobody fetches one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pairmill.ops.release.cards.publication import Publication, publication, version
from pairmill.ops.release.cards.readme import LICENCES, named, parts_pattern
from pairmill.ops.release.meanings import meaning
from pairmill.ops.release.unfinished import sentence

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_TERMS = (
    "annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes",
    "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "readLines", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "sdVersion", "separator",
    "source", "subField", "transform", "unArchive", "value",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS},
}
PARTS, PAIRS = "parts", "pairs"  # @ids
TYPES = {
    "string": "sc:Text", "large_string": "sc:Text", "bool": "sc:Boolean", "int8": "cr:Int8",
    "int16": "cr:Int16", "int32": "cr:Int32", "int64": "cr:Int64", "halffloat": "cr:Float16",
    "float": "cr:Float32", "double": "cr:Float64",
}  # fmt: skip
# of RAI, true of every release; what a recipe decides is added to them
COLLECTION = (
    "Links of images with an alt text, read from the WAT files of a web crawl. The images were"
    " downloaded once, measured and forgotten: the release has their addresses, not their bytes."
)
LIMITATIONS = (
    "Links rot, about one in a hundred each month; a file may change under its address: compare its"
    " digest.",
    "An alt text is what a page's author wrote, and need not describe the image.",
)
BIASES = (
    "Pages, languages and people are those of the web that was crawled, not of the world.",
    "A filter by a model keeps what the model was trained to see, and has that model's biases.",
)
PERSONAL = (
    "Images and alt texts may show, name or describe people. Hosts, pages and files that opted out"
    " of collection are left out, and so is what was taken down on request.",
)
MAINTENANCE = (
    "Rows that must go are taken out in a next MAJOR version. Drop them from a copy too:"
    " `pairmill release apply KEEP_LIST FOLDER`."
)
USES = ("Training and evaluation of models of images and texts, and research on such data.",)


def croissant(
    manifest: Mapping[str, Any], schema: pa.Schema, *, published: Publication | None = None
) -> dict[str, Any]:
    """croissant.json. Its paths are relative to the folder in which the files lie beside it.

    The bytes depend on the manifest and on what is ``published`` alone. Without a date, a creator
    and a URL it is read by mlcroissant, but lacks what Croissant requires.
    """
    said = published or publication(manifest)
    recipe = manifest["recipe"]
    known = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": recipe["name"],
        "description": recipe["description"],
        "conformsTo": list(CONFORMS_TO),
        "license": _licence(recipe["licence"]),
        "url": said.url,
        "creator": _creator(said),
        "datePublished": said.date_published,
        "version": version(manifest),
        "sdVersion": version(manifest),
        "citeAs": said.cite_as or _citation(recipe["name"], version(manifest), said),
        "inLanguage": [code for code in manifest["kept_by_language"] if code != "nolang"],
        "keywords": ["images", "alt texts", "vision-language", *recipe.get("tags", {})],
        "prov:wasDerivedFrom": _origin(manifest.get("derived_from")),
        **_rai(manifest),
        "distribution": [*_files(manifest), _file_set(manifest)],
        "recordSet": [_record_set(schema)],
    }
    return {key: value for key, value in known.items() if value not in ("", [], None)}


def _licence(name: str) -> str:
    return f"https://spdx.org/licenses/{name}.html" if name.lower() in LICENCES else name


def _creator(said: Publication) -> dict[str, str] | None:
    if not said.creator:
        return None
    page = {"url": said.creator_url} if said.creator_url else {}
    return {"@type": "sc:Organization", "name": said.creator} | page


def _citation(name: str, version: str, said: Publication) -> str:
    """BibTeX, of what is known."""
    known = {
        "title": f"{name}, version {version}", "author": f"{{{said.creator}}}" * bool(said.creator),
        "year": said.date_published[:4], "url": said.url,
    }  # fmt: skip
    lines = ", ".join(f"{key} = {{{value}}}" for key, value in known.items() if value)
    return f"@misc{{{name}, {lines}}}"


def _origin(derived_from: Mapping[str, Any] | None) -> dict[str, str] | None:
    if not derived_from:
        return None
    name = f"{derived_from.get('name', '')}, version {derived_from.get('version', '')}"
    return {
        "@type": "prov:Entity",
        "@id": f"urn:sha256:{derived_from['manifest_sha256']}",
        "name": name,
    }


def _files(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for each in manifest["files"]:
        yield {
            "@type": "cr:FileObject", "@id": each["name"], "name": each["name"],
            "contentUrl": each["name"], "contentSize": f"{each['bytes']} B",
            "encodingFormat": "application/x-parquet", "sha256": each["sha256"],
        }  # fmt: skip


def _file_set(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet", "@id": PARTS, "name": PARTS,
        "description": "The release's rows, in order of the files' names.",
        "encodingFormat": "application/x-parquet", "includes": parts_pattern(manifest["files"]),
    }  # fmt: skip


def _record_set(schema: pa.Schema) -> dict[str, Any]:
    ids = [name for name in schema.names if meaning(name).role == "id"]
    record_set = {
        "@type": "cr:RecordSet", "@id": PAIRS, "name": PAIRS,
        "description": "One record a pair of image and alt text.",
        "key": [{"@id": f"{PAIRS}/{name}"} for name in ids],
        "field": [_field(field) for field in schema],
    }  # fmt: skip
    return {key: value for key, value in record_set.items() if value}


def _field(field: pa.Field) -> dict[str, Any]:
    kind, depth = field.type, 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, depth = kind.value_type, depth + 1
    about = meaning(field.name)
    found = {
        "@type": "cr:Field", "@id": f"{PAIRS}/{field.name}", "name": field.name,
        "description": about.description,
        "dataType": "sc:URL" if about.role == "url" else TYPES.get(str(kind), "sc:Text"),
        "source": {"fileSet": {"@id": PARTS}, "extract": {"column": field.name}},
    }  # fmt: skip
    if depth:
        found |= {"isArray": True, "arrayShape": ",".join(["-1"] * depth)}
    return found


def _rai(manifest: Mapping[str, Any]) -> dict[str, Any]:
    models = [
        f"{model['name']} {model.get('pretrained', '')}".strip()
        for model in (manifest["model"], manifest["multilingual_model"])
        if named(model)
    ] + [f"{tagger['name']} ({column})" for column, tagger in manifest["taggers"].items()]
    unfinished = manifest["unfinished"]
    return {
        "rai:dataCollection": COLLECTION,
        "rai:dataCollectionType": ["Web Scraping", "Software Collection"],
        "rai:dataCollectionMissingData": sentence(unfinished) if unfinished else "",
        "rai:dataPreprocessingProtocol": list(_preprocessing(manifest)),
        "rai:dataAnnotationProtocol": ["Scores are models' alone; no person looked at a row."],
        "rai:machineAnnotationTools": models,
        "rai:dataLimitations": list(LIMITATIONS),
        "rai:dataBiases": list(BIASES),
        "rai:personalSensitiveInformation": [PERSONAL],
        "rai:dataUseCases": list(USES),
        "rai:dataReleaseMaintenancePlan": MAINTENANCE,
    }


def _preprocessing(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What was done to the candidates, a sentence a step, as the manifest has it."""
    yield (
        f"{manifest['kept']:,} of {manifest['candidates']:,} candidates kept by the recipe"
        f" {manifest['recipe']['name']}, version {manifest['recipe']['version']}."
    )
    for reason, count in manifest["excluded"].items():
        yield f"Left out, {reason}: {count:,}."
    for key, value in (manifest.get("thresholds") or {}).items():
        yield f"Threshold that the pool decided, {key}: {value:.6g}."
    for each in manifest.get("duplicates") or []:
        yield f"Duplicates by {each.get('method')}: {each.get('rows')} rows left out."

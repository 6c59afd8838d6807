"""The cards of a release, as Hugging Face, mlcroissant and sha256sum read them."""

import json
import re
import socket
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import folder
from pairmill.ops.release.cards.croissant import croissant
from pairmill.ops.release.cards.hub import write_card
from pairmill.ops.release.cards.publication import Publication, publication, version
from pairmill.ops.release.cards.readme import readme
from pairmill.ops.release.check import check
from pairmill.ops.release.layouts import LAYOUTS
from tests.support.laid_out import laid_out

SAID = Publication("2026-11-27", "A Society", "https://a.example", "https://a.example/set")
HOSTILE = 'x<script>alert(1)</script>|`"\n# head [a](b)\u202e'


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid_out(tmp_path_factory.mktemp("release") / "release")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No library fetches a context, a script or a file."""

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a connection is opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def head(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def about(found: Path, **others: Any) -> dict[str, Any]:
    """The manifest of a release, with other values."""
    known: dict[str, Any] = json.loads(folder.manifest_text(found))
    return known | others


@pytest.mark.parametrize(
    ("rows", "category"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**12, "n>1T")]
)
def test_the_head_of_the_card(release: Path, rows: int, category: str) -> None:
    """Would catch: a head that Hugging Face cannot read, or takes another meaning from."""
    card = head(readme(about(release, kept=rows), folder.release_schema(release)))
    features = card["dataset_info"].pop("features")
    size = sum(path.stat().st_size for path in release.glob("part-*"))
    assert card == {
        "pretty_name": "made-up", "license": "cc0-1.0", "language": ["de", "en"],
        "size_categories": [category],
        "task_categories": ["text-to-image", "image-to-text", "zero-shot-image-classification"],
        "configs": [{
            "config_name": "default",
            "data_files": [{"split": "train", "path": "part-*.parquet"}],
        }],
        "dataset_info": {
            "splits": [{"name": "train", "num_examples": rows}], "download_size": size,
        },
    }  # fmt: skip
    assert features[8] == {"name": "similarity", "dtype": "float64"}


@pytest.mark.parametrize("name", ["Ours: all", "Ours \U0001f917\x7f\u2028\n---\n\U000e0001"])
def test_a_licence_of_ones_own(release: Path, name: str) -> None:
    """Would catch: a character beyond 16 bits that YAML reads as two which UTF-8 has not."""
    recipe = about(release)["recipe"] | {"licence": name}
    card = head(readme(about(release, recipe=recipe), folder.release_schema(release)))
    assert (card["license"], card["license_name"]) == ("other", name)


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_card_of_every_layout_is_read(tmp_path: Path, offline: None, layout: str) -> None:
    """Would catch: a feature that `datasets` does not know or does not find in the files, a field
    that mlcroissant refuses, and what it warns of; a rule of `release check` that the rows of a
    layout cannot hold, such as a null that it has."""
    import datasets
    import mlcroissant

    found = laid_out(tmp_path / "release", layout=layout)
    assert [fault.sentence() for fault in check(found).faults] == []
    card = tmp_path / "card"
    write_card(found, card, SAID)
    table = pq.read_table(found)

    features = datasets.Features.from_arrow_schema(table.schema)
    assert head((card / "README.md").read_text())["dataset_info"]["features"] == (
        features._to_yaml_list()
    )
    loaded = datasets.load_dataset(str(card))["train"]
    assert loaded.features == features
    assert loaded.num_rows == 5

    described = mlcroissant.Dataset(str(card / "croissant.json"))
    issues = described.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    records = list(described.records("pairs"))
    name = next(name for name in table.column_names if name.lower() == "url")
    assert [each[f"pairs/{name}"].decode() for each in records] == table[name].to_pylist()


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")
def test_croissant_says_what_it_must(release: Path, offline: None) -> None:
    """Would catch: a required property that is absent or of another name, a checksum that is not
    the file's, and a release that does not say what it came from."""
    import mlcroissant

    origin = {"name": "made-up", "version": "1.0.0", "manifest_sha256": "ab" * 32}
    known = croissant(
        about(release, derived_from=origin, version="2.0.0", published=SAID.as_dict()),
        folder.release_schema(release),
    )
    assert {
        "@context", "@type", "conformsTo", "description", "license", "name", "url", "creator",
        "datePublished", "sdVersion", "prov:wasDerivedFrom",
    } <= known.keys()  # fmt: skip
    assert known["prov:wasDerivedFrom"]["@id"] == f"urn:sha256:{'ab' * 32}"
    sums = {each["@id"]: each.get("sha256") for each in known["distribution"]}
    assert sums == {each["name"]: each["sha256"] for each in about(release)["files"]} | {
        "parts": None
    }
    metadata = mlcroissant.Metadata.from_json(mlcroissant.Context(), json.loads(json.dumps(known)))
    assert (metadata.version, metadata.sd_version) == ("2.0.0", "2.0.0")
    assert f"{metadata.date_published:%Y-%m-%d}" == "2026-11-27"
    assert [creator.name for creator in metadata.creators] == ["A Society"]
    assert metadata.conforms_to == [
        "http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"
    ]  # fmt: skip
    for property_of_rai in (
        "data_collection", "data_collection_type", "data_preprocessing_protocol", "data_biases",
        "data_annotation_protocol", "machine_annotation_tools", "data_limitations",
        "data_use_cases", "personal_sensitive_information", "data_release_maintenance_plan",
    ):  # fmt: skip
        assert getattr(metadata, property_of_rai), property_of_rai


def test_the_folder_for_a_hub(release: Path, tmp_path: Path) -> None:
    """Would catch: bytes that depend on the clock or the folder, a checksum of another file, and
    a picture that the README names and the folder lacks."""
    names = write_card(release, tmp_path / "a", SAID)
    write_card(release, tmp_path / "b", SAID, data="copy")
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path / "a", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = {str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {*names, folder.NAME, *(path.name for path in release.glob("part-*"))}
    assert done.stdout.count(": OK") == len(files) - 1  # but for itself
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    inode = (release / "part-00000.parquet").stat().st_ino
    inodes = [(tmp_path / side / "part-00000.parquet").stat().st_ino == inode for side in "ab"]
    assert inodes == [True, False]
    text = (tmp_path / "a" / "README.md").read_text()
    assert text.count("](statistics/") == sum(name.endswith(".svg") for name in names) > 5
    assert "Published by A Society, 2026-11-27." in text


def test_what_sites_wrote_stays_text(tmp_path: Path) -> None:
    """Would catch: a licence, host or tagger's name that is markup in a chart or a page."""
    licences = [HOSTILE] * 12
    found = laid_out(
        tmp_path / "release", 12,
        change=lambda t: t.set_column(5, "LICENSE", [licences])
        .set_column(1, "URL", [[f"http://{HOSTILE[:20]}.example/{n}" for n in range(12)]]),
        taggers={"punsafe": {"name": HOSTILE, "digest": HOSTILE, "licence": HOSTILE}},
        thresholds={HOSTILE: 0.25},
        duplicates=[{"method": HOSTILE, "rows": 3, "groups": 2, "recall": 0.98765, "more": {}}],
        derived_from={"name": HOSTILE, "version": HOSTILE, "manifest_sha256": HOSTILE},
        removals={HOSTILE: HOSTILE},
    )  # fmt: skip
    write_card(found, tmp_path / "card", Publication(creator=HOSTILE, cite_as=HOSTILE))
    charts = sorted((tmp_path / "card" / "statistics").glob("*.svg"))
    assert {"licences.svg", "domains.svg", "similarity.svg"} <= {path.name for path in charts}
    for path in charts:
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(path).iter()}
        assert tags <= {"svg", "title", "text", "rect"}, path
        assert "\u202e" not in path.read_text()
    body = (tmp_path / "card" / "README.md").read_text().split("---\n", 2)[2]
    as_code = re.compile("`[^`]*`")
    assert "<" not in as_code.sub("", re.sub(r"\\.", "", body))
    assert "\n# head" not in body
    assert "\u202e" not in body
    rows = [line for line in body.splitlines() if line.startswith("| x")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [6]  # no cell more
    assert "0.9877" in body


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"date_published": "27.11.2026"}, "date_published is '27.11.2026': write it as 2026"),
        ({"date_published": "20261127"}, "date_published is '20261127': write it"),
        ({"url": "a.example"}, "url is 'a.example': write it as https"),
        ({"creator_url": "javascript:alert(1)"}, "creator_url is 'javascript"),
        ({"url": "https://a b"}, "url is 'https://a b'"),
    ],
)
def test_what_is_no_date_or_address_is_refused(values: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=f"^{told}"):
        Publication(**values)


def test_what_is_said_last_holds() -> None:
    """An option, or else what the manifest says, or else the recipe."""
    manifest = {
        "recipe": {"version": 3, "creator": "recipe", "url": "https://r.example"},
        "published": {"creator": "manifest", "date_published": "2026-01-01"},
    }
    said = publication(manifest, date_published="2026-02-02", creator="")
    assert (said.creator, said.date_published, said.url) == (
        "manifest", "2026-02-02", "https://r.example"
    )  # fmt: skip
    assert version(manifest) == "3.0.0"
    assert version(manifest | {"version": "4.1.0"}) == "4.1.0"


def test_the_command(release: Path, tmp_path: Path) -> None:
    """Would catch: a card that lacks what Croissant requires, without a word of it; a folder that
    is overwritten."""
    out = tmp_path / "card"
    run = CliRunner().invoke
    done = run(app, ["release", "card", str(release), "--to", str(out), "--data", "none"])
    assert done.exit_code == 0, done.output
    assert "give --date-published, --creator, --url" in " ".join(done.output.split())
    assert not list(out.glob("*.parquet"))
    assert "part-00000.parquet" in (out / "SHA256SUMS").read_text()
    assert "datePublished" not in json.loads((out / "croissant.json").read_text())
    again = run(app, ["release", "card", str(release), "--to", str(out)])
    assert isinstance(again.exception, UserError)
    wrong = run(app, ["release", "card", str(release), "--to", str(out), "--data", "move"])
    assert "--data is link, copy or none" in str(wrong.exception)

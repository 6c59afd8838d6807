"""The pages name nothing that a stranger's checkout lacks, and the citation is whole."""

import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.S)
# a/b, ../a; not part of a URL, of an absolute path, or of $HOME/a
PATH = re.compile(r"(?<![\w/.:$~{}*-])((?:\.\./)*[\w.*-]+(?:/[\w.*-]+)*/?)(?![\w:@])")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def paths(text: str) -> Iterator[str]:
    """The paths in the code of a page that begin with a folder of the tree, or lead out of it."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."}
    tops |= {".ci"}
    tops -= {"build", "dist", "out", "secrets"}  # ignored by git: what people make
    for block, inline in CODE.findall(text):
        for path in PATH.findall(block or inline):
            if "/" in path and (path.split("/")[0] in tops or path.startswith("../")):
                yield path.rstrip(".")


def exists(path: str) -> bool:
    """Also of a module that is named without its ending."""
    inside = (ROOT / path).resolve().is_relative_to(ROOT)
    return inside and any(any(ROOT.glob(name)) for name in (path.rstrip("/"), f"{path}.py"))


def test_paths_are_found_in_code_and_their_absence_is_seen() -> None:
    text = (
        "`ops/cli.py` and `../shared/x`, no/code\n```sh\nmake X=tests/none.py Y=http://h/ops/z\n```"
    )
    assert list(paths(text)) == ["ops/cli.py", "../shared/x", "tests/none.py"]
    assert [exists(path) for path in paths(text)] == [True, False, False]
    assert exists("ops/release/recipes/*.toml")
    assert not exists("ops/release/recipes/*.none")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_paths_that_a_page_names_are_in_the_tree(page: Path) -> None:
    text = page.read_text("utf-8")
    made = set(re.findall(r"^`(\S+)`:\n\n```", text, re.M))  # files whose text the page gives
    assert [path for path in paths(text) if not exists(path) and path not in made] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = [k for k in LINK.findall(page.read_text("utf-8")) if not re.match(r"[a-z]+:", k)]
    assert [link for link in links if not leads_somewhere(page, *link.partition("#")[::2])] == []


def leads_somewhere(page: Path, target: str, heading: str) -> bool:
    found = (page.parent / target).resolve() if target else page
    inside = found.is_relative_to(ROOT) and found.exists()
    return inside and (not heading or heading in headings(found))


def headings(page: Path) -> set[str]:
    """The anchors of a page, as forges make them of its headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_nothing_names_a_folder_that_lies_beside_the_project() -> None:
    assert [page.name for page in PAGES if "shared/" in page.read_text("utf-8")] == []


def test_citation_is_whole_and_of_this_version() -> None:
    """Citation File Format 1.2.0: what it requires, and what pyproject.toml says too."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["title"] == "Pairmill"
    assert citation["authors"] == [{"name": "The Pairmill authors"}]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert set(citation) <= {
        "cff-version", "type", "message", "title", "authors", "version", "license", "abstract",
        "keywords", "date-released",
    }  # fmt: skip
    assert isinstance(citation.get("date-released", date.min), date)


def test_changelog_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert project["version"] in versions[0]

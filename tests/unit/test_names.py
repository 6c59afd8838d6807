"""One name means one thing: no two modules or public classes of workers/ share one."""

import ast
from collections import defaultdict
from pathlib import Path

WORKERS = Path(__file__).parents[2] / "workers"
SOURCES = sorted(WORKERS.rglob("*.py"))
# each kind has these, for the same purpose
OF_EVERY_KIND = {"__init__", "calls", "worker"}


def repeated(names: list[tuple[str, Path]]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for name, path in names:
        places[name].append(str(path.relative_to(WORKERS)))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_modules_share_a_name() -> None:
    assert len(SOURCES) > 40
    assert repeated([(p.stem, p) for p in SOURCES if p.stem not in OF_EVERY_KIND]) == {}


def test_no_two_classes_share_a_name() -> None:
    classes = [
        (node.name, path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 80
    assert repeated(classes) == {}

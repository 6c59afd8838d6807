"""One name means one thing: no two modules or classes share one."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("schema", "workers", "ops") for path in (ROOT / folder).rglob("*.py")
)
# each kind has the second and third, each of workers and ops its errors, and each of the demo's site
# and the pages its server, for the same purpose
OF_SEVERAL = {"__init__", "calls", "worker", "errors", "serve"}
COMMANDS = ROOT / "ops" / "commands"  # a group of commands has the name of the module that it calls


def repeated(names: list[tuple[str, Path]]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for name, path in names:
        places[name].append(str(path.relative_to(ROOT)))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_modules_share_a_name() -> None:
    assert len(SOURCES) > 120
    named = [(p.stem, p) for p in SOURCES if p.stem not in OF_SEVERAL and p.parent != COMMANDS]
    assert repeated(named) == {}


def test_no_two_classes_share_a_name() -> None:
    classes = [
        (node.name, path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 140
    assert repeated(classes) == {}

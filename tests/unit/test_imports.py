"""The floors of the house: which package may import which, read from the source of each module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "schema": {"schema"},
    "migrations": {"migrations", "schema"},
    "workers": {"workers", "schema"},
    "ops": {"ops", "workers", "schema", "migrations"},
}
# Within ops, what a room may import beside itself and the modules that stand in ops/ directly. The
# command and the demo may import every room.
ROOMS: dict[str, set[str]] = {
    "server": set(),
    "admin": {"server"},
    "taggers": set(),
    "fetch": set(),
    "archive": {"admin"},
    "dedupe": {"archive"},
    "release": {"admin", "archive", "dedupe"},
    "vectors": {"admin", "archive", "release"},
    "web": {"admin", "archive", "dedupe", "release", "vectors"},
}
# need no database: a directory of files or an index is all that they read
WITHOUT_DATABASE = (
    "ops.fetch",
    "ops.release.cards",
    "ops.release.check",
    "ops.release.statistics",
    "ops.taggers.head_files",
    "ops.taggers.training",
    "ops.taggers.zero_shot",
    "ops.release.diff",
    "ops.release.keep_list",
    "ops.release.keep_list_apply",
    "ops.vectors.arrays",
    "ops.vectors.duplicates",
    "ops.vectors.export_reader",
    "ops.vectors.hnsw",
    "ops.vectors.index",
    "ops.vectors.index_build",
    "ops.vectors.index_info",
    "ops.vectors.index_plan",
    "ops.vectors.ivfpq",
    "ops.vectors.opened",
    "ops.vectors.query_vectors",
    "ops.vectors.recall",
    "ops.vectors.shard",
    "ops.vectors.shard_files",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))}


def imported(source: str) -> Iterator[str]:
    """Our modules that a source imports anywhere in it, without the leading ``pairmill.``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide which floor is meant"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if not name.startswith("pairmill."):
                continue
            short = name.removeprefix("pairmill.")
            while short and short not in MODULES:  # a name within a module
                short = short.rpartition(".")[0]
            if short:
                yield short


IMPORTS = {name: set(imported(path.read_text("utf-8"))) for name, path in MODULES.items()}


def reachable(start: str) -> set[str]:
    """All modules that importing one may import, the ones imported late among them."""
    found, waiting = set(), [start]
    while waiting:
        for name in IMPORTS[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_imports_are_read() -> None:
    """No rule below holds for want of imports."""
    source = (
        "import pairmill.workers.queue as q\nfrom pairmill.ops.fetch import run\n"
        "def f():\n    from pairmill.schema.outcomes import Outcome\n"
        "from pairmill import __version__\nimport trio"
    )
    assert set(imported(source)) == {"workers.queue", "ops.fetch.run", "schema.outcomes"}
    assert "schema.outcomes" in IMPORTS["workers.score.model"]
    assert "ops.server.embedded" in reachable("ops.commands.release")


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_what_is_below_it(floor: str) -> None:
    above = {
        (module, name)
        for module, names in IMPORTS.items()
        if within(module, floor)
        for name in names
        if name.partition(".")[0] not in FLOORS[floor]
    }
    assert not above


def test_no_kind_of_work_imports_another() -> None:
    kinds = {path.parent.name for path in (ROOT / "workers").glob("*/worker.py")}
    assert kinds >= {"extract", "download", "score", "steward"}
    across = {
        (module, name)
        for kind in kinds
        for module, names in IMPORTS.items()
        if within(module, f"workers.{kind}")
        for name in names
        if any(within(name, f"workers.{other}") for other in kinds - {kind})
    }
    assert not across


def test_what_the_kinds_share_imports_no_kind() -> None:
    kinds = {path.parent.name for path in (ROOT / "workers").glob("*/worker.py")}
    down = {
        (module, name)
        for module, names in IMPORTS.items()
        if within(module, "workers") and not any(within(module, f"workers.{k}") for k in kinds)
        for name in names
        if any(within(name, f"workers.{kind}") for kind in kinds)
    }
    assert not down


def test_every_room_is_declared_and_says_what_it_is() -> None:
    folders = {path.parent for path in (ROOT / "ops").glob("*/*.py")}
    assert {folder.name for folder in folders} == ROOMS.keys() | {"commands", "demo"}
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))), folder


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_that_it_may(room: str) -> None:
    allowed = {room} | ROOMS[room]
    across = {
        (module, name)
        for module, names in IMPORTS.items()
        if within(module, f"ops.{room}")
        for name in names
        if name.count(".") > 1 and within(name, "ops") and name.split(".")[1] not in allowed
    }
    assert not across


def test_what_all_rooms_share_imports_none() -> None:
    shared = {path.stem for path in (ROOT / "ops").glob("*.py")} - {"__init__", "cli"}
    assert shared >= {"errors", "files", "output"}
    assert not {
        (module, name)
        for module in shared
        for name in IMPORTS[f"ops.{module}"]
        if within(name, "ops") and name.removeprefix("ops.") not in shared
    }


@pytest.mark.parametrize("part", WITHOUT_DATABASE)
def test_what_needs_no_database_never_reaches_the_admins_rooms(part: str) -> None:
    modules = [name for name in MODULES if within(name, part)]
    assert modules
    for module in modules:
        reached = reachable(module)
        assert not [n for n in reached if within(n, "ops.admin") or within(n, "ops.server")], module


ASKED_BY_EACH_COMMAND = """
import sys
from pairmill import migrations
from pairmill.ops import cli
from pairmill.schema import routines

assert migrations.revisions() and routines.version()
print(*sys.modules)
"""


def test_a_command_starts_without_what_takes_long_to_import() -> None:
    """Would catch: each of a script's thousand calls of the command that takes a second more."""
    loaded = subprocess.check_output([sys.executable, "-c", ASKED_BY_EACH_COMMAND], text=True)
    slow = {"alembic", "numpy", "pyarrow", "pydantic", "sqlalchemy", "torch", "trio"}
    assert not slow & set(loaded.split())

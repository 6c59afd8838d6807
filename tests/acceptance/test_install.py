"""What a stranger gets from an installation of the tree, however the tree came to them."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from support.database import empty_database
from support.installing import FOLDERS, ROOT, copied, install

PATTERNS = (
    "*.py", "*.sql", "*.toml", "*.txt", "*.json", "*.safetensors", "*.html", "*.css", "*.js", "*.svg",
)  # fmt: skip
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the tree as git has them, without anything that a build left."""
    return copied(tmp_path_factory.mktemp("tree") / "pairmill")


def _without_links(tree: Path, to: Path) -> None:
    """What a ZIP holds: of a link nothing but a file with its target's name in it."""
    for path in tree.rglob("*"):
        copy = to / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.write_text(str(path.readlink()))
        elif path.is_file():
            shutil.copy(path, copy)


def _zip(tree: Path, folder: Path) -> str:
    _without_links(tree, folder / "plain")
    return shutil.make_archive(str(folder / "tree"), "zip", folder / "plain")


def _repository(tree: Path, folder: Path) -> Path:
    origin = folder / "origin"
    shutil.copytree(tree, origin, symlinks=True)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *command], cwd=origin, check=True)
    return origin


def _clone_without_symlinks(tree: Path, folder: Path) -> str:
    clone = folder / "clone"
    origin = _repository(tree, folder)
    subprocess.run(
        [*GIT, "clone", "-q", "-c", "core.symlinks=false", str(origin), str(clone)], check=True
    )
    return str(clone)


def _git_url(tree: Path, folder: Path) -> str:
    return f"git+{_repository(tree, folder).as_uri()}"


def _built(tree: Path, folder: Path, what: str) -> Path:
    source = folder / "source"
    shutil.copytree(tree, source, symlinks=True)
    (source / "build" / "lib" / "pairmill").mkdir(parents=True)
    (source / "build" / "lib" / "pairmill" / "of_an_earlier_build.py").touch()
    build = f"from setuptools import build_meta; print(build_meta.build_{what}({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (found,) = [p for p in folder.iterdir() if p.suffix in (".gz", ".whl")]
    return found


def _sdist(tree: Path, folder: Path) -> str:
    return str(_built(tree, folder, "sdist"))


def _wheel(tree: Path, folder: Path) -> str:
    return str(_built(tree, folder, "wheel"))


WAYS = {
    "zip": _zip,
    "clone-without-symlinks": _clone_without_symlinks,
    "git-url": _git_url,
    "sdist": _sdist,
    "wheel": _wheel,
}


@pytest.fixture(params=WAYS)
def installed(
    request: pytest.FixtureRequest, tree: Path, tmp_path: Path
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with pairmill installed in it, and the environment that runs it from there."""
    source = WAYS[request.param](tree, tmp_path)
    target = tmp_path / "installed"
    install(source, target)
    yield target, {**os.environ, "PYTHONPATH": str(target)}


def test_every_way_to_install_migrates_a_database(
    installed: tuple[Path, dict[str, str]], server: str, tmp_path: Path
) -> None:
    """Would catch: an installation without its SQL, or of one file, that nobody notices."""
    target, environment = installed

    def run(*command: str, **more: str) -> str:
        done = subprocess.run(
            command,
            env=environment | more,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(sys.executable, "-c", "import pairmill; print(pairmill.__file__)")
    assert Path(where.strip()) == target / "pairmill" / "__init__.py"
    command = str(target / "bin" / "pairmill")
    assert run(command, "--version") == "pairmill 0.1.0\n"
    with empty_database(server) as dsn:
        run(command, "migrate", DATABASE_URL=dsn)
        assert run(command, "status", DATABASE_URL=dsn).startswith("WAT files     0")
    for folder in FOLDERS:
        for pattern in PATTERNS:
            for file in (ROOT / folder).rglob(pattern):
                copy = target / "pairmill" / file.relative_to(ROOT)
                assert copy.read_bytes() == file.read_bytes()
    assert (target / "pairmill" / "py.typed").exists()


def test_a_wheel_holds_one_package_and_brings_volunteers_no_torch(
    tree: Path, tmp_path: Path
) -> None:
    wheel = zipfile.ZipFile(_built(tree, tmp_path, "wheel"))
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"pairmill", "pairmill-0.1.0.dist-info"}
    assert "pairmill/of_an_earlier_build.py" not in wheel.namelist()
    metadata = Parser().parsestr(wheel.read("pairmill-0.1.0.dist-info/METADATA").decode())
    requires = metadata.get_all("Requires-Dist") or []
    torch = [r for r in requires if r.startswith(("torch", "open_clip"))]
    assert len(torch) == 3
    assert all('extra == "score"' in r for r in torch)


PIP_CUT_OFF_ONCE = """#!/bin/sh
echo "pip in $(cat .venv/made)" >> log
[ -e cut ] && exit 0
touch cut
kill -INT $PPID  # Ctrl-C
exit 130
"""
PYTHON = """#!/bin/sh
case "$*" in
*venv*)
    echo venv >> log
    rm -rf .venv; mkdir -p .venv/bin
    grep -c venv log > .venv/made
    cp ../pip .venv/bin/pip ;;
esac
"""


def test_an_install_that_was_cut_off_mends_itself(tmp_path: Path) -> None:
    """Would catch: half a package that pip takes for a whole one, and `make` for installed."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, clone)
    for name, script in (("python", PYTHON), ("pip", PIP_CUT_OFF_ONCE)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    def make() -> int:
        command = ["make", f"PYTHON={tmp_path / 'python'}", ".venv/.for-demo"]
        return subprocess.run(command, cwd=clone, capture_output=True, check=False).returncode

    assert make() != 0
    assert make() == 0
    assert (clone / "log").read_text().split("\n")[:-1] == ["venv", "pip in 1", "venv", "pip in 2"]
    assert make() == 0  # and not a third time
    assert (clone / "log").read_text().count("pip") == 2

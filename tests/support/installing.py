"""Installing the tree into a folder, as a stranger would, without a network."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("schema", "migrations", "workers", "ops")


def copied(folder: Path) -> Path:
    """The files of the tree in a new folder, without what builds leave: setuptools packs that, too."""
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in (*FOLDERS, "src"):
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )  # fmt: skip
    return folder


def install(source: str | Path, target: Path) -> None:
    """What a build needs is there already, and so are the dependencies."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run([*pip, *offline, "--target", str(target), str(source)], check=True)

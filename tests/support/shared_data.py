"""The real test data, which is not part of the repository."""

import os
from pathlib import Path

import pytest


def shared_file(name: str) -> Path:
    """A file of the folder shared/data beside the project, or of the folder that PAIRMILL_SHARED
    names; the test is skipped, saying so, where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("PAIRMILL_SHARED", beside)) / name
    if not path.is_file():
        pytest.skip(
            f"the real test data is absent: {name} of the folder that PAIRMILL_SHARED names;"
            " docs/real-input.md says where it is from"
        )
    return path

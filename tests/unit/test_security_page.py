"""The tests that docs/security.md names for the pages."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_each_attack_on_the_pages_has_tests_that_exist() -> None:
    """Would catch: a row of the table whose test was renamed or never written."""
    (section,) = re.findall(r"^### What was tried against the pages$(.*?)^## ", PAGE.read_text(), re.M | re.S)  # fmt: skip
    rows = re.findall(r"^\| (\d[^|]+) \|[^|]+\|[^|]+\| ([^|]+) \|$", section, re.M)
    assert len(rows) > 25
    assert len(rows) == len(re.findall(r"^\| \d", section, re.M))
    files = {path.stem: path.read_text() for path in TESTS.glob("[iu]*/test_*.py")}
    missing = []
    for number, cell in rows:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", cell)
        assert named, number
        missing += [f"{f}::{t}" for f, t in named if f"def {t}(" not in files.get(f, "")]
    assert missing == []

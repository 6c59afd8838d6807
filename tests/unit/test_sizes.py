"""No file of tests grows beyond what a reader takes in."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
LINES = 500


def test_no_file_of_tests_is_longer_than_500_lines() -> None:
    lengths = {
        str(path.relative_to(TESTS)): len(path.read_text("utf-8").splitlines())
        for path in TESTS.rglob("*.py")
    }
    assert len(lengths) > 50
    assert {path: length for path, length in lengths.items() if length > LINES} == {}

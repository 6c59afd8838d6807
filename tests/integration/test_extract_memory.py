"""Extraction's memory, on files that are made to fill it."""

import json
from pathlib import Path

import pytest

from pairmill.workers.extract.records import MAX_BODY
from support.peak import extraction_peak
from support.wats import image, packed, page


@pytest.mark.parametrize("links", [1, 290_000])
def test_a_process_stays_below_300_megabytes(links: int, tmp_path: Path) -> None:
    """Two records as long as is read, of links as short as a pair's can be, or of one long link."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc that says how much memory a process took")
    records = []
    for name in "ab":
        many = [image(f"{name}{n:x}", "words") for n in range(links)]
        many.append(image("a", "x" * (MAX_BODY - 1_000 - len(json.dumps(many)))))
        records.append(page("http://h/", many))
    path = tmp_path / "a.wat.gz"
    path.write_bytes(packed(records))
    pairs, peak = extraction_peak(path)
    assert pairs == 2 * links
    assert peak < 300e6

"""When the database is asked which links are known, and what the worker says of it."""

import pytest

from pairmill.workers.extract.probe import ASKED_WHEN_OFF, KEYS_PER_LEASE, PAYS, UrlProbe
from pairmill.workers.extract.rows import PAIRS_PER_PART


def parts(probe: UrlProbe, shares: list[float], size: int = PAIRS_PER_PART) -> str:
    """A letter for each part of a file, with so many of its links known: asked or passed over."""
    probe.begin()
    said = ""
    for share in shares:
        asked = probe.wanted()
        if asked:
            probe.learn(size, round(size * share))
        said += "a" if asked else "-"
    return said


def test_a_young_database_is_hardly_asked_and_a_grown_one_always() -> None:
    """Would catch a probe that never begins, that goes on in vain, or that forgets by each file."""
    probe = UrlProbe()
    now_and_then = "a" + "-" * (ASKED_WHEN_OFF - 1)
    assert parts(probe, [0.0] * 2 * ASKED_WHEN_OFF) == 2 * now_and_then
    assert parts(probe, [0.9] * 20) == "a" * 20
    assert parts(probe, [PAYS] * 20) == "a" * 20
    assert parts(probe, [PAYS - 0.05] * 2 * ASKED_WHEN_OFF) == 2 * now_and_then


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([], ""),
        ([0.88] * 6, "probe: 88 % of 120,000 known"),
        ([0.02] * 3, "probe off: 2 % known"),
        ([0.0], "probe off: 0 % known"),
        ([1.0], "probe: 100 % of 20,000 known"),
    ],
)
def test_it_says_of_a_file_what_it_found(shares: list[float], said: str) -> None:
    """Would catch a line about another file, and a division by nothing."""
    probe = UrlProbe()
    parts(probe, shares)
    assert probe.said() == said
    probe.begin()
    if shares:
        last = f"{100 * shares[0]:.0f} %"
        assert last in probe.said()
        assert "20,000" not in probe.said()


def test_a_file_with_more_links_than_may_be_asked_for_is_not_refused() -> None:
    """Would catch a file whose extraction fails at the bound of a lease, time after time."""
    probe = UrlProbe()
    most = KEYS_PER_LEASE // PAIRS_PER_PART
    assert parts(probe, [1.0] * (most + 5)) == "a" * most + "-----"
    assert parts(probe, [1.0] * 3) == "aaa", "the next file"

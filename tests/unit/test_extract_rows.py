import io

import pytest

from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.rows import rows_in_parts
from support.wats import image, packed, page, warcinfo

DETECT = LanguageDetector().detect
URL = "http://page.example/"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_page_is_sent_once_before_its_first_pair(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: a page over two parts is sent twice, or one without a pair at all."""
    monkeypatch.setattr("pairmill.workers.extract.rows.PAIRS_PER_PART", size)
    names = ["ab", "", "a", "cde", "f"]  # of each page's images; the third has a duplicate alone
    pages = [page(f"{URL}{n}/", [image(f"/{c}.jpg", "a text") for c in names[n]]) for n in range(5)]
    pairs = extract(io.BytesIO(packed([warcinfo(), *pages])), Counts())
    parts = list(rows_in_parts(pairs, 7, DETECT))
    sent: list[int] = []
    for part in parts:
        sent += [row[1] for row in part.pages]
        assert {row[-1] for row in part.pairs} <= set(sent)
    assert sent == [1, 4, 5]
    rows = [row for part in parts for row in part.pairs]
    assert [(row[0], row[1], row[3][-5], row[-1]) for row in rows] == [
        (7, n, name, at) for n, (name, at) in enumerate(zip("abcdef", [1, 1, 4, 4, 4, 5], strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_known_pair_costs_neither_language_nor_page(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: a text that nobody wants is looked at, a page without a pair is sent, a page whose
    first pairs are known is not, numbers have holes."""
    monkeypatch.setattr("pairmill.workers.extract.rows.PAIRS_PER_PART", size)
    names = ["ab", "c", "Cd", "AB"]  # known ones are in lower case
    pages = [
        page(f"{URL}{n}/", [image(f"/{c}.jpg", f"text {c}") for c in names[n]]) for n in range(4)
    ]
    asked: list[str] = []

    def detect(text: str) -> tuple[str, float]:
        asked.append(text)
        return "en", 0.5

    def new(pairs: list[Pair]) -> list[Pair]:
        return [pair for pair in pairs if pair.url[-5].isupper()]

    pairs = extract(io.BytesIO(packed([warcinfo(), *pages])), Counts())
    parts = list(rows_in_parts(pairs, 7, detect, new))
    assert [row[1] for part in parts for row in part.pages] == [3, 4]
    assert [row[1:2] + row[4:7] for part in parts for row in part.pairs] == [
        (n, f"text {name}", "en", 0.5) for n, name in enumerate("CAB")
    ]
    assert asked == ["text C", "text A", "text B"]

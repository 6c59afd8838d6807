import io

import pytest

from pairmill.workers.extract.extract import Counts, extract
from pairmill.workers.extract.rows import rows_in_parts
from support.wats import image, packed, page, warcinfo

URL = "http://page.example/"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_page_is_sent_once_before_its_first_pair(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: a page over two parts is sent twice, or one without a pair at all."""
    monkeypatch.setattr("pairmill.workers.extract.rows.ROWS_PER_COPY", size)
    names = ["ab", "", "a", "cde", "f"]  # of each page's images; the third has a duplicate alone
    pages = [page(f"{URL}{n}/", [image(f"/{c}.jpg", "a text") for c in names[n]]) for n in range(5)]
    parts = list(rows_in_parts(extract(io.BytesIO(packed([warcinfo(), *pages])), Counts()), 7))
    sent: list[int] = []
    for part in parts:
        sent += [row[1] for row in part.pages]
        assert {row[-1] for row in part.pairs} <= set(sent)
    assert sent == [1, 4, 5]
    pairs = [row for part in parts for row in part.pairs]
    assert [(row[0], row[1], row[3][-5], row[-1]) for row in pairs] == [
        (7, n, name, at) for n, (name, at) in enumerate(zip("abcdef", [1, 1, 4, 4, 4, 5], strict=True))
    ]  # fmt: skip

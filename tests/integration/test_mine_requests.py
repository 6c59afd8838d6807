"""Requests for removal through the page, and attacks on them."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from pairmill.ops.admin import removal, removal_requests
from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.web.explore import requests
from pairmill.workers.download.decode import decode
from support.database import Database
from support.explore import exploring, page_login
from support.hostile_text import HOSTILE, RAW
from support.image_parts import encoded
from support.removals import URLS, removed
from support.template import Template

PHOTO = encoded(photo_like(5, (400, 300)))
WISH = {"urls": URLS[2], "reason": "it shows me", "contact": "me@home.example"}
TEXT_TYPE = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def line(template: Template) -> Iterator[Database]:
    with template.copy() as database:
        database.extract(URLS, pages=["http://p.example/"] * len(URLS))
        database.close_batches()
        yield database


@pytest.fixture(scope="module")
def browser(line: Database) -> Iterator[httpx.Client]:
    with exploring([requests.routes], page_login(line), contact="admin@site.example") as client:
        yield client


@pytest.fixture(autouse=True)
def many_a_minute(monkeypatch: pytest.MonkeyPatch, line: Database) -> None:
    """Each test begins without requests, and as if nobody had asked yet."""
    line.admin.execute("delete from mill.removal_request")


@pytest.fixture(autouse=True, scope="module")
def unlimited() -> Iterator[None]:
    before, requests.RATE = requests.RATE, "100000/minute"
    yield
    requests.RATE = before


def ask(browser: httpx.Client, files: dict[str, Any] | None = None, **fields: str) -> str:
    """Send the form; the address of its page."""
    answer = browser.post("/remove", data=WISH | fields, files=files)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].partition("?")[0]


def test_a_request_reaches_the_admin_and_its_answer_the_asker(
    line: Database, browser: httpx.Client
) -> None:
    """A form whose words, or whose answer, get lost on the way."""
    address = ask(browser, attachment="a letter\nof two lines", samples="3", host="h5.example")
    (request,) = removal_requests.listed(line.admin, "open", 9)
    assert request["entries"] == [URLS[2], "h5.example", "sample:3"]
    assert (request["requester"], request["evidence"]) == (WISH["contact"], WISH["reason"])
    assert (request["attachment"], request["origin"]) == (["a letter", "of two lines"], "web")
    assert (request["due_at"] - request["received_at"]).days == 30
    page = browser.get(address).text
    assert "waiting for an admin" in page
    assert WISH["contact"] not in page
    assert WISH["reason"] not in page
    report = removal_requests.approve(line.admin, request["request_id"], "it is yours", None)
    assert report.matching_pairs == 3
    page = browser.get(address).text
    assert "approved" in page
    assert "it is yours" in page
    told = browser.get(address, headers={"Accept": "application/json"}).json()
    assert (told["state"], told["answer"], told["pairs"]) == ("approved", "it is yours", 3)
    removal.undo(line.admin, removal.named_by(line.admin, request["entries"]), "", False)
    assert removed(line) == []


def test_a_refusal_is_told_in_its_words(line: Database, browser: httpx.Client) -> None:
    address = ask(browser)
    (request,) = removal_requests.listed(line.admin, "open", 9)
    removal_requests.refuse(line.admin, request["request_id"], "<b>not yours</b>")
    assert "&lt;b&gt;not yours&lt;/b&gt;" in browser.get(address).text


def test_an_image_becomes_hashes_that_name_its_copies(
    line: Database, browser: httpx.Client
) -> None:
    """An upload whose hashes are not those that downloads have, or that is kept."""
    ask(browser, {"image": ("me.jpg", PHOTO)}, urls="")
    (request,) = removal_requests.listed(line.admin, "open", 9)
    found = decode(PHOTO)
    assert request["entries"] == [
        found.sha256.hex(), f"pdq:{found.pdq.hex()}/31", f"dhash:{found.dhash}",
    ]  # fmt: skip
    assert [parse(entry).kind for entry in request["entries"]] == ["image"] * 3


@pytest.mark.parametrize("files", [None, {"image": ("x.jpg", b"")}])
def test_pages_are_asked_for_by_their_addresses(
    line: Database, browser: httpx.Client, files: dict[str, Any] | None
) -> None:
    ask(browser, files, urls="http://p.example/", pages="1")
    (request,) = removal_requests.listed(line.admin, "open", 9)
    assert request["of_pages"]
    report = removal_requests.approve(line.admin, request["request_id"], "", None, dry_run=True)
    assert report.matching_pairs == len(URLS)


@pytest.mark.parametrize(
    ("fields", "files", "says"),
    [
        ({"urls": ""}, {}, "at least one"),
        ({"urls": "nonsense"}, {}, "is no http"),
        ({"urls": "example.org"}, {}, "is no address"),
        ({"urls": "javascript://x/%0aalert(1)"}, {}, "is no http"),
        ({"host": "http://x.example/"}, {}, "is no host"),
        ({"samples": "-1"}, {}, "is no SAMPLE_ID"),
        ({"samples": "999999"}, {}, "no pair has the SAMPLE_ID 999999"),
        ({"pages": "1", "host": "x.example"}, {}, "only whole addresses"),
        ({"contact": " "}, {}, "how to answer"),
        ({"contact": "x" * 301}, {}, "how to answer"),
        ({"reason": "x" * 4001}, {}, "4,000"),
        ({"urls": "\n".join(f"http://a.example/{i}" for i in range(101))}, {}, "at most 100"),
        ({"urls": "\n".join(f"http://a.example/{i}{'x' * 1500}" for i in range(9))}, {}, "10,000"),
        ({"attachment": "x" * 15_001}, {}, "15,000"),
        ({}, {"file": ("a.pdf", b"%PDF-1.7 \xff\xfe")}, "only plain text"),
        ({}, {"file": ("a.txt", b"a\x00b")}, "only plain text"),
        ({}, {"image": ("a.jpg", b"<svg onload=alert(1)>")}, "no image"),
        ({}, {"image": ("a.jpg", PHOTO[:2000])}, "cut off"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_stored(
    line: Database, browser: httpx.Client, fields: dict[str, str], files: dict[str, Any], says: str
) -> None:
    answer = browser.post("/remove", data=WISH | fields, files=files or None)
    assert answer.status_code == 400
    assert says in answer.text
    assert 'href="javascript' not in answer.text
    assert removal_requests.listed(line.admin, None, 9) == []


def test_hostile_words_are_words_and_one_line_each(line: Database, browser: httpx.Client) -> None:
    """Reason, contact, attachment and a file's name: as markup on a page, as control characters in
    an admin's terminal, as a path."""
    name = '../../etc/passwd"><script>alert(1)</script>\x1b[31m'
    files = {"file": (name, HOSTILE.encode()), "image": (name, PHOTO)}
    address = ask(browser, files, reason=HOSTILE, contact=HOSTILE[:300])
    (request,) = removal_requests.listed(line.admin, "open", 9)
    stored = [request["evidence"], request["requester"], *request["attachment"]]
    assert stored[0].startswith("[/bold]")
    assert not any(RAW.search(text) for text in stored)
    answer = browser.get(address)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    again = browser.post("/remove", data=WISH | {"reason": HOSTILE, "contact": "", "urls": HOSTILE})
    assert again.status_code == 400
    assert "<script>alert" not in again.text
    assert not RAW.search(again.text)


def test_only_the_token_shows_a_request(line: Database, browser: httpx.Client) -> None:
    """Numbers, hashes and guesses (IDOR): nobody reads what another asked for."""
    address = ask(browser)
    token = address.removeprefix("/request/")
    assert len(token) == 32
    (request,) = removal_requests.listed(line.admin, "open", 9)
    digest = hashlib.sha256(token.encode()).hexdigest()
    for guess in (str(request["request_id"]), digest, token[:-1], token.lower(), "%00", "x" * 5000):
        answer = browser.get(f"/request/{guess}")
        assert answer.status_code in (404, 414)
        assert URLS[2] not in answer.text
    assert token not in str(line.rows("select * from mill.removal_request"))
    headers = browser.get(address).headers
    assert headers["cache-control"] == "no-store"
    assert "noindex" in headers["x-robots-tag"]


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_site_cannot_ask_in_a_visitors_name(
    line: Database, browser: httpx.Client, headers: dict[str, str]
) -> None:
    """CSRF: a form elsewhere that is sent here."""
    with httpx.Client(base_url=browser.base_url, headers=headers) as stranger:
        assert stranger.post("/remove", data=WISH).status_code == 403
    assert removal_requests.listed(line.admin, None, 9) == []


def test_bodies_are_bounded_before_they_are_read(line: Database, browser: httpx.Client) -> None:
    """100 MB that are held in memory, or spooled to a disk."""
    answer = browser.post("/remove", files={"image": ("x", bytes(100_000_000))})
    assert answer.status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(200):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with suppress(httpx.WriteError):  # the server had answered and closed already
        assert browser.post("/remove", content=endless(), headers=headers).status_code == 413
    assert removal_requests.listed(line.admin, None, 9) == []
    for broken in ("multipart/form-data", "multipart/form-data; boundary=b", TEXT_TYPE):
        answer = browser.post("/remove", content=b"\xff\x00=&--b", headers={"Content-Type": broken})
        assert answer.status_code == 400
    many = "".join(
        f'--b\r\nContent-Disposition: form-data; name="f{i}"\r\n\r\n\r\n' for i in range(40)
    )
    assert browser.post("/remove", content=f"{many}--b--", headers=headers).status_code == 400


def test_a_flood_ends_at_the_days_bound(line: Database, browser: httpx.Client) -> None:
    """Requests that fill the admin's list, and the disk."""
    line.admin.execute(
        "insert into mill.removal_request (entries, requester, evidence, due_at, token_sha256, origin)"
        " select '{x}', 'x', '', now(), sha256(i::text::bytea), 'web' from generate_series(1, 999) i"
    )
    ask(browser)
    answer = browser.post("/remove", data=WISH)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "come back tomorrow" in answer.text
    line.admin.execute(
        "update mill.removal_request set received_at = received_at - interval '2 days'"
    )
    ask(browser)


def test_a_network_asks_a_few_times(line: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One person's flood that uses up the day's bound for all."""
    monkeypatch.setattr(requests, "RATE", "3/minute;20/hour")
    with exploring([requests.routes], page_login(line)) as client:
        states = [client.post("/remove", data=WISH).status_code for _ in range(5)]
        assert states == [303, 303, 303, 429, 429]
        assert client.get("/remove").status_code == 200


def test_without_a_database_the_page_says_whom_to_write_to() -> None:
    with exploring([requests.routes], None, contact="<admin@site.example>") as client:
        assert "&lt;admin@site.example&gt;" in client.get("/remove").text
        assert client.post("/remove", data=WISH).status_code == 404
        assert client.get("/request/x").status_code == 404

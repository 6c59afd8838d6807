"""Thumbnails: of rows of served releases alone, through the guard, and gone with their rows."""

import io
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import httpx
import pyarrow as pa
import pytest
from PIL import Image

from pairmill.ops.admin import removal
from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.errors import UserError
from pairmill.ops.web.explore import thumbnails
from pairmill.ops.web.explore.thumbnails import KeptThumbnail, ThumbnailCache
from pairmill.ops.web.uploads import Decoder
from support.database import Database
from support.explore import exploring, page_login
from support.hostile_web import BOMBS
from support.image_parts import encoded
from support.made_releases import made_release, rows_of
from support.template import Template

PHOTO = encoded(photo_like(7, (600, 500)))
POLYGLOT = PHOTO + b"<script>alert(1)</script>"
BODIES = {
    "/good.jpg": PHOTO, "/polyglot.jpg": POLYGLOT, "/untagged.jpg": PHOTO, "/unsafe.jpg": PHOTO,
    "/removed.jpg": PHOTO, "/bomb.png": BOMBS["png"], "/page.jpg": b"<html><script>",
    "/large.jpg": bytes(10_000_001),
}  # fmt: skip
REDIRECTS = {"/inside.jpg": "http://169.254.169.254/latest/", "/file.jpg": "file:///etc/passwd"}
OUTSIDE = [
    "http://[::1]:{port}/secret", "http://10.0.0.1/x.jpg", "http://169.254.169.254/x.jpg",
    "ftp://127.0.0.1/x.jpg",
]  # fmt: skip


class Web(BaseHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()
    told: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.told.update(name.lower() for name in self.headers)
        body = BODIES.get(self.path, b"")
        self.send_response(302 if self.path in REDIRECTS else 200)
        if self.path in REDIRECTS:
            self.send_header("Location", REDIRECTS[self.path])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def line(template: Template, web: int) -> Iterator[Database]:
    with template.copy() as database:
        database.extract([url_of(web, path) for path in BODIES])
        yield database


def paths() -> list[str]:
    return [*BODIES, *REDIRECTS, *OUTSIDE]


def url_of(port: int, path: str) -> str:
    return path.format(port=port) if "://" in path else f"http://127.0.0.1:{port}{path}"


@pytest.fixture(scope="module")
def numbers(line: Database, web: int) -> dict[str, int]:
    """SAMPLE_IDs; URLs of the release that no pair has are from 100 on."""
    known = dict(line.rows("select url, mill.sample_id(batch_id, n) from mill.pair"))
    return {path: known.get(url_of(web, path), 100 + i) for i, path in enumerate(paths())}


@pytest.fixture(scope="module")
def browser(
    line: Database, web: int, numbers: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    ordered = sorted((number, path) for path, number in numbers.items())
    tags = [{"/unsafe.jpg": 0.9, "/untagged.jpg": None}.get(path, 0.1) for _, path in ordered]
    table = rows_of(
        [number for number, _ in ordered],
        URL=[url_of(web, path) for _, path in ordered],
        punsafe=pa.array(tags, pa.float32()),
    )
    folder = made_release(tmp_path_factory.mktemp("releases") / "ours", table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRMILL_ALLOW_NETWORKS", "127.0.0.1/32")
        patch.setenv("PAIRMILL_CONTACT", "https://example.org/")
        with exploring([thumbnails.routes], page_login(line), folder, thumbnails=True) as client:
            yield client


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_thumbnail_is_drawn_anew_and_small(
    browser: httpx.Client, numbers: dict[str, int]
) -> None:
    """A stranger's bytes, served from this page's own origin."""
    answer = browser.get(f"/thumbnail/{numbers['/polyglot.jpg']}")
    assert picture(answer).size == (307, 256)
    assert b"<script>" not in answer.content
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_it_is_fetched_once(browser: httpx.Client, numbers: dict[str, int]) -> None:
    """Each visitor's look would be a request to somebody's server."""
    for _ in range(3):
        browser.get(f"/thumbnail/{numbers['/good.jpg']}")
        browser.get(f"/thumbnail/{numbers['/page.jpg']}")
    assert (Web.asked["/good.jpg"], Web.asked["/page.jpg"]) == (1, 1)
    assert Web.told == {"host", "user-agent", "accept", "accept-encoding"}  # nothing of a visitor


@pytest.mark.parametrize("path", ["/unsafe.jpg", "/untagged.jpg"])
def test_unsafe_and_untagged_ones_are_blurred_until_asked_for(
    browser: httpx.Client, numbers: dict[str, int], path: str
) -> None:
    """Safety that fails open where there is no tag."""
    address = f"/thumbnail/{numbers[path]}"
    whole = picture(browser.get(f"/thumbnail/{numbers['/good.jpg']}"))
    blurred, shown = picture(browser.get(address)), picture(browser.get(f"{address}?show=1"))
    assert shown.tobytes() == whole.tobytes()
    assert contrast(blurred) < contrast(whole) / 4


def contrast(image: Image.Image) -> float:
    """The mean difference of neighbours."""
    pixels = list(image.convert("L").tobytes())
    return sum(abs(a - b) for a, b in pairwise(pixels)) / len(pixels)


@pytest.mark.parametrize(
    "path", ["/bomb.png", "/page.jpg", "/large.jpg", *REDIRECTS, *OUTSIDE]
)  # fmt: skip
def test_a_rows_url_reaches_nothing_inside_and_no_bomb(
    browser: httpx.Client, numbers: dict[str, int], path: str
) -> None:
    """SSRF: a release's rows are written by strangers' pages."""
    answer = browser.get(f"/thumbnail/{numbers[path]}")
    assert answer.status_code == 404
    assert "There is no picture" in answer.text
    assert not Web.asked["/secret"]


@pytest.mark.parametrize(
    "asked", ["99999", "9223372036854775808", "-1", "1.jpg", "http://x/", "1?url=http://127.0.0.1/"]
)
def test_nothing_is_fetched_that_is_no_row(browser: httpx.Client, asked: str) -> None:
    """An open proxy, by whatever stands in the address."""
    before = Web.asked.total()
    answer = browser.get(f"/thumbnail/{asked}")
    assert answer.status_code in (200, 404)
    assert Web.asked.total() - before <= (answer.status_code == 200)
    assert not Web.asked["/"]


def test_a_removed_rows_picture_is_gone_although_it_was_kept(
    line: Database, browser: httpx.Client, numbers: dict[str, int], web: int
) -> None:
    address = f"/thumbnail/{numbers['/removed.jpg']}"
    assert browser.get(address).status_code == 200
    removal.add(line.admin, [url_of(web, "/removed.jpg")], "", False)
    assert browser.get(address).status_code == 410


def test_by_default_there_are_none(line: Database, tmp_path: Path) -> None:
    with exploring([thumbnails.routes], page_login(line)) as client:
        assert client.get("/thumbnail/1").status_code == 404


def test_thumbnails_without_a_contact_do_not_start(
    monkeypatch: pytest.MonkeyPatch, line: Database
) -> None:
    monkeypatch.delenv("PAIRMILL_CONTACT", raising=False)
    with (
        pytest.raises(UserError, match="PAIRMILL_CONTACT"),
        exploring([thumbnails.routes], page_login(line), thumbnails=True),
    ):
        pass


def test_the_cache_is_bounded_in_bytes_and_in_time() -> None:
    """Memory that grows with every row that is looked at, and a picture that stays for ever."""
    now = [100.0]
    cache = ThumbnailCache(Decoder(), most_bytes=10_000, clock=lambda: now[0])
    for number in range(100):
        cache._keep(f"http://{number}", KeptThumbnail(bytes(1000), 200.0))
    assert cache._kept.currsize <= 10_000
    assert 1 < len(cache._kept) < 10
    assert cache.known("http://99")
    now[0] = 200.5
    assert cache.known("http://99") is None


def test_many_who_ask_at_once_cause_one_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ready, go = Counter[str](), threading.Event(), threading.Event()

    def fetch(url: str, **_: object) -> bytes:
        asked[url] += 1
        ready.set()
        assert go.wait(10)
        return PHOTO

    monkeypatch.setattr(thumbnails, "fetch_image", fetch)
    with Decoder(1) as decoder:
        cache = ThumbnailCache(decoder)
        found: list[KeptThumbnail] = []
        threads = [
            threading.Thread(target=lambda: found.append(cache.get("http://a/"))) for _ in range(5)
        ]
        threads[0].start()
        assert ready.wait(10)
        for thread in threads[1:]:
            thread.start()
        go.set()
        for thread in threads:
            thread.join()
    assert asked["http://a/"] == 1
    assert len({each.image for each in found}) == 1
    assert len(found) == 5

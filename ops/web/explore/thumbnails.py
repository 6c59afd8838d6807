"""Thumbnails of rows, where the admin turned them on: by SAMPLE_ID, never by URL.

Only the URL of a row of a served release is fetched, through the downloader's guard; what is shown
is drawn anew, small, without metadata; it is in memory for a while and then gone. A picture that is
unsafe, or of which no release says that it is safe, is blurred until it is clicked.
"""

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache
from PIL import Image, ImageFilter
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.release_rows import OpenRelease, Row
from pairmill.ops.web.limits import Gate, Rate
from pairmill.ops.web.outside import check_outside, fetch_image
from pairmill.ops.web.uploads import Decoder

RATE = "60/10second;600/minute"  # of a client's network: pages of 50 rows
FETCHES = 8  # at once, of all visitors; as many again and more wait
WAITING = 64
SECONDS, LIMIT_BYTES = 8.0, 10_000_000
KEPT_SECONDS, FAILED_SECONDS = 3600.0, 600.0
KEPT_BYTES = 64_000_000
UNSAFE_ABOVE, SAFE_LABEL = 0.5, "UNLIKELY"  # of punsafe and NSFW, as `pairmill web knn` has them
BLUR = 24  # pixels of a Gaussian's radius, of 256: shapes stay, nobody is recognised


@dataclass(frozen=True)
class KeptThumbnail:
    """A thumbnail in memory; image: JPEG, None where it could not be had, for ``why``."""

    image: bytes | None
    until: float
    why: str = ""


class ThumbnailCache:
    """Thumbnails of URLs: bounded in bytes and seconds, one fetch of a URL at a time. clock: as
    time.monotonic."""

    def __init__(
        self,
        decoder: Decoder,
        most_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder, self._clock = decoder, clock
        self._lock = threading.Lock()
        self._kept: TLRUCache[str, KeptThumbnail] = TLRUCache(
            most_bytes, lambda url, kept, now: kept.until, clock, _size
        )
        self._fetching: dict[str, threading.Event] = {}

    def known(self, url: str) -> KeptThumbnail | None:
        with self._lock:
            return self._kept.get(url)

    def get(self, url: str) -> KeptThumbnail:
        """From memory, or fetched and decoded; blocks. What failed is not tried again at once."""
        while (found := self.known(url)) is None:
            with self._lock:
                turn = self._fetching.get(url)
                if turn is None:
                    self._fetching[url] = threading.Event()
            if turn is None:
                return self._fetch(url)
            if not turn.wait(2 * SECONDS):
                raise HTTPException(503, headers={"Retry-After": "5"})
        return found

    def _fetch(self, url: str) -> KeptThumbnail:
        try:
            body = fetch_image(url, limit_bytes=LIMIT_BYTES, seconds=SECONDS)
            image = self._decoder.read(body).thumbnail
            made = KeptThumbnail(image, self._clock() + KEPT_SECONDS)
            self._keep(url, made)
        except UserError as problem:
            made = KeptThumbnail(None, self._clock() + FAILED_SECONDS, str(problem))
            self._keep(url, made)
        finally:
            with self._lock:
                self._fetching.pop(url).set()
        return made

    def _keep(self, url: str, made: KeptThumbnail) -> None:
        with self._lock:
            self._kept[url] = made


def _size(kept: KeptThumbnail) -> int:
    return len(kept.image or b"") + 300  # with its URL


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    """/thumbnail/SAMPLE_ID, and none where thumbnails are off. Raises UserError where they are on
    and nothing may be fetched from this machine."""
    if not settings.thumbnails:
        return []
    check_outside()
    cache, gate, rate = ThumbnailCache(settings.decoder), Gate(FETCHES, WAITING), Rate(RATE)

    async def thumbnail(request: Request) -> Response:
        rate.check(request)
        sample_id = request.path_params["sample_id"]
        url, blurred = await run_in_threadpool(_row_of, settings, sample_id)
        found = cache.known(url)
        if found is None:
            async with gate:
                found = await run_in_threadpool(cache.get, url)
        if found.image is None:
            raise HTTPException(404, f"There is no picture: {found.why}.")
        image = found.image
        if blurred and request.query_params.get("show") != "1":
            image = await run_in_threadpool(blur, image)
        # not longer than a removal may take to be heeded; and nobody else's cache has it
        headers = {
            "Cache-Control": "private, max-age=300", "Content-Disposition": "inline",
            "X-Robots-Tag": "noindex", "Content-Security-Policy": "default-src 'none'; sandbox",
        }  # fmt: skip
        return Response(image, media_type="image/jpeg", headers=headers)

    return [Route("/thumbnail/{sample_id:int}", thumbnail, methods=["GET"])]


def _row_of(settings: ExploreSettings, sample_id: int) -> tuple[str, bool]:
    """The URL of a row of a served release, and whether its picture is blurred."""
    if sample_id >= 1 << 63:
        raise HTTPException(404)
    rows = [
        (release, row)
        for release in settings.releases.served()
        if (row := release.row(sample_id)) is not None
    ]
    if not rows:
        raise HTTPException(404, "No release here has such a row.")
    if sample_id in settings.releases.hidden([sample_id]):
        raise HTTPException(410, "This row was removed since the release was made.")
    release, row = rows[0]
    return str(row[release.shape.by_role["url"]]), any(is_unsafe(r, each) for r, each in rows)


def is_unsafe(release: OpenRelease, row: Row) -> bool:
    """Whether a row's picture is blurred: a tag says that it is unsafe, or none says anything."""
    punsafe, nsfw = (release.shape.get(role) for role in ("punsafe", "nsfw"))
    value = row.get(punsafe) if punsafe else None
    label = row.get(nsfw) if nsfw else None
    if value is None and label is None:
        return True
    bad = value is not None and not value <= UNSAFE_ABOVE
    return bad or (label is not None and str(label) != SAFE_LABEL)


def blur(image: bytes) -> bytes:
    """A JPEG, blurred; of ours, which the decoder has drawn."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(image), formats=["JPEG"]) as opened:
        opened.filter(ImageFilter.GaussianBlur(BLUR)).save(out, "JPEG", quality=60)
    return out.getvalue()

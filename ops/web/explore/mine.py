"""Is mine in it? By URL in every spelling, by host, and by the picture itself.

What was removed is answered as what was never there: who holds a partner's list, or guesses a name
out of somebody's request, could else ask the page. A visitor's picture is decoded, compared, and
kept nowhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.admin.removal_entries import Entry, parse
from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.explore_calls import KEYS_AT_ONCE, KnownUrl
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.posted import posted
from pairmill.ops.web.explore.release_rows import OpenRelease, Row
from pairmill.ops.web.failures import wants_json
from pairmill.ops.web.limits import Rate
from pairmill.ops.web.render import render
from pairmill.ops.web.uploads import UploadedImage

RATE = "10/minute;100/hour"  # pictures of a client's network
SHOWN = 50  # rows of a host, and samples of a picture
NEAREST = 100  # samples that a picture is compared with
SAME_DHASH = 4  # bits of 64: other decoders and filters differ by so many (workers/dhash.py)
SAME_PDQ = 31  # bits of 256, as PDQ's authors advise
# cosine of two images by CLIP; below it are the nearest of any picture
SIMILAR = 0.9
STATES = {
    "waiting": "known, and not downloaded yet",
    "downloaded": "known, and downloaded",
    "failed": "known, and could not be downloaded",
    "opted_out": "known, and not downloaded: its site or page opted out",
}


@dataclass(frozen=True)
class FoundRow:
    """A row of a release."""

    release: str
    sample_id: int
    url: str
    text: str


@dataclass(frozen=True)
class OfUrl:
    """spellings: the URLs that mean the same. rows: of releases. known: in the database, of which
    images that no release took may be, too; None: there is none beside this page."""

    url: str
    spellings: int
    rows: list[FoundRow]
    known: list[KnownUrl] | None


@dataclass(frozen=True)
class OfHost:
    """counts: rows a release, of those that have any. rows: the first of each."""

    host: str
    subdomains: bool
    counts: list[tuple[str, int]]
    rows: list[FoundRow]


@dataclass(frozen=True)
class OfImage:
    """same_file: rows whose image is this file, byte by byte. same_picture: samples that look as
    it does, by hashes of what they show. similar: (row, cosine similarity), no more than alike.
    nearest: whether the last two were looked for. trouble: why not."""

    image: UploadedImage
    same_file: list[FoundRow]
    same_picture: list[FoundRow] = field(default_factory=list)
    similar: list[tuple[FoundRow, float]] = field(default_factory=list)
    nearest: bool = False
    trouble: str = ""


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    """/mine: GET with url or host, POST with an image."""
    rate = Rate(RATE)

    def ask(request: Request) -> Response:
        given = request.query_params
        url, host = given.get("url", "").strip(), given.get("host", "").strip()
        answer: OfUrl | OfHost | None = None
        if url:
            answer = of_url(settings, url)
        elif host:
            answer = of_host(settings, host, subdomains=bool(given.get("below")))
        return _page(request, settings, answer)

    async def upload(request: Request) -> Response:
        rate.check(request)
        sent = await posted(request)
        body = sent.files.get("image", b"")
        return _page(request, settings, await run_in_threadpool(of_image, settings, body))

    return [Route("/mine", ask, methods=["GET"]), Route("/mine", upload, methods=["POST"])]


def of_url(settings: ExploreSettings, given: str) -> OfUrl:
    """Raises UserError for what is no URL."""
    entry = parse(given)
    if entry.kind != "url":
        raise UserError(f"{given[:200]!r} is no address: it begins with http:// or https://")
    spellings = entry.sources[:KEYS_AT_ONCE]
    found = _rows(settings, ((r, r.by_urls(spellings)) for r in _served(settings)))
    known = settings.calls.known_urls(keys_of(entry)) if settings.calls else None
    return OfUrl(entry.source, len(spellings), found, known)


def keys_of(entry: Entry) -> list[Any]:
    """The md5s of a URL's spellings, as the database has them."""
    keys = [each.md5 for each in (entry, *entry.spellings) if each.md5]
    return keys[:KEYS_AT_ONCE]


def of_host(settings: ExploreSettings, given: str, *, subdomains: bool) -> OfHost:
    """Raises UserError for what is no host."""
    entry = parse(given)
    if entry.kind != "host" or not entry.host or entry.subdomains:
        raise UserError(f"{given[:200]!r} is no host: example.org, without http:// and slashes")
    hosts = [name for name in (entry.host, *(each.host for each in entry.spellings)) if name]
    counts, rows = [], []
    for release in _served(settings):
        total, some = 0, dict[int, Row]()
        for host in hosts:
            count, first = release.by_host(host, limit=SHOWN, subdomains=subdomains)
            total += count
            some |= dict(first)
        if total:
            counts.append((release.name, total))
            rows.append((release, dict(list(some.items())[:SHOWN])))
    return OfHost(entry.host, subdomains, counts, _rows(settings, rows))


def of_image(settings: ExploreSettings, body: bytes) -> OfImage:
    """Raises UserError for what is no image."""
    image = settings.decoder.read(body)
    md5, sha256 = image.md5.hex(), image.sha256.hex()
    releases = _served(settings)
    same = _rows(settings, ((r, r.by_hashes(md5=md5, sha256=sha256)) for r in releases))
    if settings.knn is None:
        return OfImage(image, same)
    try:
        near = settings.knn.near_image(image.thumbnail, NEAREST, one_of_each=False, safe=False)
    except UserError as problem:
        return OfImage(image, same, trouble=str(problem))
    cosines = {each.sample_id: each.similarity for each in near[:NEAREST]}
    ids = [each for each in cosines if each not in {row.sample_id for row in same}]
    looks = _looks(settings, ids, image)
    rows = _rows(settings, ((r, r.rows(ids)) for r in releases))
    rows.sort(key=lambda row: -cosines[row.sample_id])
    alike = [row for row in rows if row.sample_id in looks]
    others = [
        (row, cosines[row.sample_id])
        for row in rows
        if row.sample_id not in looks and cosines[row.sample_id] >= SIMILAR
    ]
    return OfImage(image, same, alike[:SHOWN], others[:SHOWN], nearest=True)


def _looks(settings: ExploreSettings, ids: Sequence[int], image: UploadedImage) -> set[int]:
    """Those whose image shows the same, by their hashes."""
    if settings.calls is None or not ids:
        return set()
    found = settings.calls.compare_image(ids, image.dhash, image.pdq)
    # a flat image has no PDQ, and its dHash is that of all other flat ones
    return {
        each.sample_id
        for each in found
        if (each.pdq_bits is not None and each.pdq_bits <= SAME_PDQ)
        or (image.pdq and each.dhash_bits is not None and each.dhash_bits <= SAME_DHASH)
    }


def _served(settings: ExploreSettings) -> list[OpenRelease]:
    return settings.releases.served()


def _rows(
    settings: ExploreSettings, found: Iterable[tuple[OpenRelease, dict[int, Row]]]
) -> list[FoundRow]:
    """As they are shown, without those that were removed since."""
    rows = [
        FoundRow(
            release.name, number, str(row[release.shape.by_role["url"]]),
            str(row.get(release.shape.get("text") or "", "") or ""),
        )
        for release, some in found
        for number, row in some.items()
    ]  # fmt: skip
    hidden = settings.releases.hidden([row.sample_id for row in rows]) if rows else set()
    return [row for row in rows if row.sample_id not in hidden]


def _page(
    request: Request, settings: ExploreSettings, answer: OfUrl | OfHost | OfImage | None
) -> Response:
    headers = {"Cache-Control": "no-store"}
    if wants_json(request) or request.query_params.get("format") == "json":
        return JSONResponse(_told(answer), headers=headers)
    return render(
        request,
        "explore/mine.html",
        headers=headers,
        url=answer if isinstance(answer, OfUrl) else None,
        host=answer if isinstance(answer, OfHost) else None,
        image=answer if isinstance(answer, OfImage) else None,
        given=request.query_params,
        states=STATES,
        shown=SHOWN,
        has_knn=settings.knn is not None,
        partial=[each.name for each in _served(settings) if each.partial],
        releases=[each.name for each in _served(settings)],
    )


def _told(answer: OfUrl | OfHost | OfImage | None) -> dict[str, Any]:
    """For scripts. Of an image no more than its hashes and what was found."""
    if answer is None:
        raise UserError("name a url or a host, or post an image")
    if isinstance(answer, OfImage):
        return {
            "md5": answer.image.md5.hex(), "sha256": answer.image.sha256.hex(),
            "same_file": [asdict(row) for row in answer.same_file],
            "same_picture": [asdict(row) for row in answer.same_picture],
            "similar": [asdict(row) | {"similarity": s} for row, s in answer.similar],
            "nearest_looked_for": answer.nearest, "trouble": answer.trouble,
        }  # fmt: skip
    told = asdict(answer)
    if isinstance(answer, OfUrl) and answer.known is not None:
        told["known"] = [
            {"sample_id": k.sample_id, "state": k.state, "outcome": k.outcome, "signal": k.signal}
            for k in answer.known
        ]
    return told

"""The demo's web site: real pages and real images on a handful of hosts, from a seed.

It has what the web has: true captions and false ones, foreign ones, missing and too short
ones, dead links, redirects, files that are not what they say. What must come out of it
follows from how it is built (``DemoSite.links``), not from running the extractor.
"""

import html
import io
import random
from dataclasses import dataclass, field

from PIL import Image

from pairmill.ops.demo import drawings
from pairmill.schema.outcomes import DropReason, Outcome

SEED = 1_000_500  # of the drawings: the demo's model was never trained on these
HOSTS = ("garden.example", "shop.example", "news.example", "museum.example", "blog.example")
LICENSE = "https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True)
class File:
    """The server's answer for one path. location: of a redirect."""

    content_type: str
    body: bytes
    status: int = 200
    location: str = ""


@dataclass(frozen=True)
class SiteLink:
    """An image link of a page. url: absolute, as it must come out; fate: how the extractor must
    drop it, or how its download must end. matching: whether its text says what is on it. copy_of:
    the URL of the image that it is a copy of."""

    url: str
    text: str | None
    fate: DropReason | Outcome
    matching: bool = False
    copy_of: str | None = None


@dataclass
class SitePage:
    """A page of the site. body: its HTML. links: its image links, in order."""

    url: str
    body: str = ""
    links: list[SiteLink] = field(default_factory=list)


@dataclass
class DemoSite:
    """files: what the server answers, by (host, path). pages: what was crawled."""

    files: dict[tuple[str, str], File] = field(default_factory=dict)
    pages: list[SitePage] = field(default_factory=list)

    @property
    def links(self) -> list[SiteLink]:
        """Every image link of every page, in order; a URL may stand in several."""
        return [link for page in self.pages for link in page.links]


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _encoded(image: Image.Image, extension: str) -> bytes:
    out = io.BytesIO()
    # PNG at level 1: half of the site's making was zlib at 6, and grain does not shrink
    image.save(out, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension], compress_level=1)
    return out.getvalue()


def build(*, drawn: bool = True) -> DemoSite:
    """The site; the same bytes every time. Not ``drawn``: its pages and links, which need none of
    the galleries' images, and those take all of the time."""
    site = DemoSite()
    for number in range(20):
        _gallery(site, number, drawn=drawn)
    _photographs(site, drawn=drawn)
    _oddities(site)
    _refusing(site)
    _copies(site, drawn=drawn)
    _repeats(site)
    for page in site.pages:
        host, _, path = page.url.removeprefix("http://").partition("/")
        site.files[host, "/" + path] = File("text/html; charset=utf-8", page.body.encode())
    return site


def _gallery(site: DemoSite, number: int, *, drawn: bool) -> None:
    """Eight drawings, with captions that match, that do not, and in other languages."""
    host = HOSTS[number % len(HOSTS)]
    page = SitePage(f"http://{host}/gallery/{number}.html")
    tags = []
    for place in range(8):
        seed = SEED + 8 * number + place
        what = drawings.attributes(seed)
        caption = drawings.caption(seed, what)
        extension = ("jpg", "jpg", "png", "webp")[place % 4]
        path = f"/images/{seed}.{extension}"
        if drawn:
            image = _encoded(drawings.draw(seed, (400, 300))[0], extension)
            site.files[host, path] = File(f"image/{extension}", image)
        matching = False
        if place < 4:
            text, matching = caption, True
        elif place < 6:
            text = drawings.caption(seed, _others(seed, what))
        else:
            text = drawings.caption_in(("de", "fr", "es")[(number + place) % 3], what)
        # every way to write a URL: relative, absolute path, without a scheme, whole
        ways = (
            f"../images/{seed}.{extension}",
            path,
            f"//{host}{path}",
            f"http://{host}{path}#top",
        )
        tags.append(_img(ways[(number + place) % 4], text))
        page.links.append(SiteLink(f"http://{host}{path}", text, Outcome.SUCCESS, matching))
    licence = f'<a rel="license" href="{LICENSE}">licence</a>'
    # the licence before the images, after them, or not at all
    body = ([licence, *tags], [*tags, licence], tags)[number % 3]
    page.body = _html(f"Gallery {number}", body)
    site.pages.append(page)


def _others(seed: int, what: drawings.Attributes) -> drawings.Attributes:
    """Attributes that differ from these in everything."""
    rng = random.Random(f"others {seed}")
    colours = [c for c in drawings.COLOURS if c not in (what.colour, what.ground)]
    colour, ground = rng.sample(colours, 2)
    return drawings.Attributes(
        rng.choice([c for c in drawings.COUNTS if c != what.count]),
        colour,
        rng.choice([s for s in drawings.SHAPES if s != what.shape]),
        ground,
    )


def _photographs(site: DemoSite, *, drawn: bool) -> None:
    """Textures as large as photographs, by way of <base href>."""
    page = SitePage("http://museum.example/photographs/index.html")
    tags = ['<base href="/archive/">']
    for number in range(24):
        size = (640, 480) if number % 2 else (480, 640)
        path = f"/archive/photo-{number}.jpg"
        if drawn:
            image = jpeg(drawings.photo_like(number, size))
            site.files["museum.example", path] = File("image/jpeg", image)
        text = f"An old photograph from the archive of the museum, number {number}"
        tags.append(_img(f"photo-{number}.jpg", text))
        page.links.append(SiteLink(f"http://museum.example{path}", text, Outcome.SUCCESS))
    page.body = _html("Photographs", tags)
    site.pages.append(page)


def _oddities(site: DemoSite) -> None:
    """Images and links that fail, one of each sort."""
    host = "odd.example"
    base = f"http://{host}"
    good, caption, _ = drawings.draw(SEED - 1, (400, 300))
    data = jpeg(good)
    small = jpeg(drawings.draw(SEED - 2, (64, 48))[0].convert("RGB"), quality=40)
    served = {
        "/good.jpg": File("image/jpeg", data),
        "/small.jpg": File("image/jpeg", small),
        "/page.jpg": File("image/jpeg", b"<!doctype html><title>Not found</title><p>Sorry"),
        "/truncated.jpg": File("image/jpeg", data[: len(data) // 2]),
        "/empty.jpg": File("image/jpeg", b""),
        "/strip.png": File("image/png", _encoded(Image.new("RGB", (1200, 20), "red"), "png")),
        "/moved.jpg": File("text/html", b"", 301, "/good.jpg?moved"),
        "/elsewhere.jpg": File("text/html", b"", 302, "http://garden.example/images/elsewhere.jpg"),
        "/loop.jpg": File("text/html", b"", 302, "/loop.jpg"),
        "/good.jpg?moved": File("image/jpeg", data),
        "/error.jpg": File("text/html", b"", 500),
    }
    site.files |= {(host, path): file for path, file in served.items()}
    site.files["garden.example", "/images/elsewhere.jpg"] = File("image/jpeg", data)
    site.files["private.example", "/ours.jpg"] = File("image/jpeg", data)
    site.files["private.example", "/robots.txt"] = File(
        "text/plain", b"User-agent: *\nDisallow: /\n"
    )
    text = caption
    links: list[tuple[str, str | None, DropReason | Outcome]] = [
        ("/good.jpg", "Fish &amp; chips, with a&nbsp;drawing &lt;of&gt; it", Outcome.SUCCESS),
        ("/small.jpg", "A picture that is much too small for a release", Outcome.SUCCESS),
        ("/page.jpg", "A picture that is really a page of text", Outcome.NOT_AN_IMAGE),
        ("/truncated.jpg", "A picture of which one half is missing", Outcome.TRUNCATED_IMAGE),
        ("/empty.jpg", "A picture with nothing in the file", Outcome.EMPTY),
        ("/strip.png", "A thin red line between two paragraphs", Outcome.TOO_THIN),
        ("/moved.jpg", "A picture that has moved to another place", Outcome.SUCCESS),
        ("/elsewhere.jpg", "A picture that has moved to another server", Outcome.SUCCESS),
        ("http://private.example/ours.jpg", "A picture that is not for robots", Outcome.OPTED_OUT),
        ("/loop.jpg", "A picture that moves for ever", Outcome.TOO_MANY_REDIRECTS),
        ("/error.jpg", "A picture on a server that is broken today", Outcome.SERVER_ERROR),
        ("/gone-1.jpg", "A picture that is not there any more", Outcome.HTTP_ERROR),
        ("/gone-2.jpg", "Another picture that is not there any more", Outcome.HTTP_ERROR),
        ("/logo.svg", "The logo of this web site", DropReason.FILE_TYPE),
        ("/anim.GIF?x=1", "An animation of a dancing banana", DropReason.FILE_TYPE),
        ("data:image/gif;base64,R0lGODlh", "A picture within the page", DropReason.SCHEME),
        ("javascript:void(0)", "A script where a picture should be", DropReason.SCHEME),
        ("", "A picture without an address", DropReason.NO_URL),
        ("/" + "x" * 2100, "A picture with an address that is too long", DropReason.URL_TOO_LONG),
        ("/no-alt.jpg", None, DropReason.NO_TEXT),
        ("/empty-alt.jpg", "", DropReason.NO_TEXT),
        ("/short.jpg", "logo", DropReason.TEXT_TOO_SHORT),
        ("/spaces.jpg", "  a   b ", DropReason.TEXT_TOO_SHORT),
        ("/long.jpg", "word " * 600, DropReason.TEXT_TOO_LONG),
    ]  # fmt: skip
    page = SitePage(f"{base}/index.html")
    for reference, alt, fate in links:
        url = base + reference if reference.startswith("/") else reference
        page.links.append(SiteLink(url, html.unescape(alt) if alt else alt, fate))
    tags = [_img(reference, alt, escaped=True) for reference, alt, _ in links]
    page.body = _html(text, tags)
    site.pages.append(page)


def _refusing(site: DemoSite) -> None:
    """A page that opts out of training by its own <meta>, with an image like any other."""
    host, path, text = "news.example", "/images/portrait.jpg", "A portrait on a page that opts out"
    site.files[host, path] = File("image/jpeg", jpeg(drawings.draw(SEED - 3, (400, 300))[0]))
    page = SitePage(f"http://{host}/no-ai.html")
    page.links.append(SiteLink(f"http://{host}{path}", text, Outcome.OPTED_OUT))
    page.body = _html("Not for training", [_img(path, text)], '<meta name="robots" content="noai">')
    site.pages.append(page)


def _copies(site: DemoSite, *, drawn: bool) -> None:
    """A page with copies of other pages' images, with their captions: the same bytes, bytes that
    were encoded again, and smaller ones."""
    host = "mirror.example"
    page = SitePage(f"http://{host}/found.html")
    # the first image of a gallery is a JPEG whose caption matches
    for number, original in enumerate(p.links[0] for p in site.pages[6:12]):
        path = f"/found/{number}.jpg"
        if drawn:
            own_host, _, own_path = original.url.removeprefix("http://").partition("/")
            data = site.files[own_host, f"/{own_path}"].body
            site.files[host, path] = File("image/jpeg", _copied(data, number % 3))
        page.links.append(
            SiteLink(f"http://{host}{path}", original.text, Outcome.SUCCESS, True, original.url)
        )
    page.body = _html("Found", [_img(link.url, link.text) for link in page.links])
    site.pages.append(page)


def _copied(data: bytes, way: int) -> bytes:
    if way == 0:
        return data
    image: Image.Image = Image.open(io.BytesIO(data))
    if way == 2:
        image = image.resize((320, 240), Image.Resampling.LANCZOS)
    return jpeg(image, quality=70)


def _repeats(site: DemoSite) -> None:
    """A page that shows again what other pages show."""
    page = SitePage("http://blog.example/favourites.html")
    again = [link for p in site.pages[:5] for link in p.links[:2]]
    page.links += [SiteLink(link.url, link.text, link.fate, link.matching) for link in again]
    page.body = _html("Favourites", [_img(link.url, link.text) for link in again])
    site.pages.append(page)


def _img(reference: str, alt: str | None, *, escaped: bool = False) -> str:
    shown = alt if escaped or alt is None else html.escape(alt)
    return f'<img src="{reference}"' + ("" if shown is None else f' alt="{shown}"') + ">"


def _html(title: str, body: list[str], metas: str = "") -> str:
    head = f"<!doctype html>\n<html><head><title>{title}</title>{metas}</head>\n<body>\n"
    return head + "\n".join(body) + "\n</body></html>\n"

"""Which of an <img>'s attributes gives the URL of its image.

Pages that load their images late have a placeholder in ``src``, and the image's URL in another
attribute, which a script reads. A WAT may hold such an attribute as a member of the ``IMG@/src``
link, or as a link of its own beside it (``IMG@/data-src``; of all these ia-web-commons writes only
``IMG@/data-uri``, before the ``src``). ``src`` counts unless it is a placeholder; then the first
of ``LAZY_FIELDS`` that can be taken does, of a ``srcset`` its largest candidate. So an <img> is one
link whatever attributes it has.
"""

import re
from collections.abc import Iterator, Sequence

from pairmill.workers.extract.link_kinds import IMAGE
from pairmill.workers.extract.links import LAZY_FIELDS, LazyLink, Link
from pairmill.workers.extract.references import Decode

SRC = IMAGE.paths[0]
LAZY_PATHS = dict(zip(IMAGE.beside, LAZY_FIELDS.values(), strict=True))
MAX_SRCSET = 64 * 1024  # characters of a srcset that are read

# A record without any of these has no such attribute. Four searches of every record would be a
# fifth of all parsing: they are made where an image asks.
_SIGNS = (b"data-src", b"srcset", b"data-original", b"data-lazy", b"data-uri")

# Beginnings of file names, in lower case. What only looks like one costs nothing: its URL is taken
# unless the same <img> names another.
_PLACEHOLDERS = (
    "1px.", "1px-", "1px_", "1x1.", "1x1-", "1x1_", "ajax-load", "ajax_load", "b.gif", "blank",
    "clear", "dot.", "dummy", "empty", "gray", "grey", "image-placeholder", "image_placeholder",
    "img-placeholder", "img_placeholder", "lazy", "load", "no-image", "no_image", "noimage",
    "p.gif", "pixel", "placehold", "preload", "s.gif", "spacer", "spin", "t.gif",
    "thumb-placeholder", "trans", "white", "x.gif",
)  # fmt: skip
_LONGEST = max(map(len, _PLACEHOLDERS))
# A test of these first, in the cases that are usual, takes a fifth of the time.
_FIRST = 4
_BEGINNINGS = frozenset(
    write(name[:_FIRST]) for name in _PLACEHOLDERS for write in (str.lower, str.title, str.upper)
)

# The HTML standard's "parse a srcset attribute": candidates are parted by white space and commas,
# a URL may hold commas but at its end, and a descriptor's parentheses may too.
_URL = re.compile(r"[ \t\n\f\r,]*([^ \t\n\f\r]+)")
_DESCRIPTORS = re.compile(r"[^,(]*(?:\([^)]*\)?[^,(]*)*")
_WIDTH = re.compile(r"([0-9]{1,9})w")
_DENSITY = re.compile(r"([0-9]{0,9}\.?[0-9]{1,9}(?:[eE][+-]?[0-9])?)x")


def is_placeholder(url: str | None) -> bool:
    """Is a ``src``, as written, one that stands for another, as far as its name tells?"""
    if not url:
        return True
    at = url.rfind("/") + 1
    if url[at : at + _FIRST] in _BEGINNINGS:
        return url[at : at + _LONGEST].lower().startswith(_PLACEHOLDERS)
    return not at and url[0] == "#"


def may_be_lazy(body: bytes | bytearray) -> bool:
    """Can a record hold any of the attributes?"""
    return any(sign in body for sign in _SIGNS)


def others(link: Link, decode: Decode | None) -> Iterator[tuple[str, str]]:
    """The URLs that an <img> names beside its ``src``, each with its attribute."""
    for name, field in LAZY_FIELDS.items():
        value = getattr(link, field, None)
        if value and decode:
            value = decode(value)
        url = largest(value) if value and name.endswith("srcset") else value
        if url:
            yield name, url


def largest(srcset: str) -> str | None:
    """The URL of the widest (``w``), else densest (``x``) candidate, the first of equal ones.

    One without a descriptor is of density 1; one with a wrong descriptor, or with the image itself
    in place of a URL (``data:``), is passed over.
    """
    best: tuple[float, float] = (-1.0, -1.0)
    chosen = None
    at = 0
    srcset = srcset[:MAX_SRCSET]
    while found := _URL.match(srcset, at):
        at = found.end()
        url, descriptors = found[1].rstrip(","), ""
        if url == found[1]:
            described = _DESCRIPTORS.match(srcset, at)
            descriptors, at = (described[0], described.end()) if described else ("", at)
        size = _size(descriptors.split())
        if url and size and size > best and url[:5].lower() != "data:":
            chosen, best = url, size
    return chosen


def _size(descriptors: Sequence[str]) -> tuple[float, float] | None:
    width, density = 0.0, 1.0
    for descriptor in descriptors:
        if found := _WIDTH.fullmatch(descriptor):
            width = float(found[1])
        elif found := _DENSITY.fullmatch(descriptor):
            density = float(found[1])
        elif not re.fullmatch("[0-9]{1,9}h", descriptor):  # of a height, which nothing uses yet
            return None
    return width, density


def joined(links: Sequence[Link]) -> list[Link]:
    """A page's links, each <img> as one, ``IMG@/src``, that has all its attributes.

    links: as read with ``LAZY_FIELDS``. A link ``IMG@/data-src`` belongs to the ``IMG@/src`` that
    stands directly beside it and lacks that attribute: the one that has the same alt; without an
    alt, the one before it, or that after it on pages where such links stand first. Without either
    it is an <img> of its own, which has no ``src``.
    """
    stand_first = _stand_first(links)
    out: list[Link] = []
    image: Link | None = None  # the <img> that the links directly before are of
    waiting: list[Link] = []  # for the IMG@/src after them
    for link in links:
        if stand_first and _without_alt(link):
            waiting.append(link)
        elif link.path in LAZY_PATHS:
            if not (image and (link.alt or image.alt) == image.alt and _take(image, link)):
                image = _alone(link)
                out.append(image)
        else:
            if link.path == SRC:
                image = link
                waiting = [one for one in waiting if not _take(link, one)]
            elif not _of_image(link):
                image = None
            out += [*map(_alone, waiting), link]
            waiting = []
    return [*out, *map(_alone, waiting)]


def _stand_first(links: Sequence[Link]) -> bool:
    """Do more of a page's rows of <img> links begin with another attribute than end with one?"""
    begin = end = 0
    before = Link()
    for link in (*links, Link()):
        if not _of_image(before) and _without_alt(link):
            begin += 1
        if _without_alt(before) and not _of_image(link):
            end += 1
        before = link
    return begin > end


def _of_image(link: Link) -> bool:
    return (link.path or "").startswith("IMG@/")  # IMG@/longdesc too


def _without_alt(link: Link) -> bool:
    return link.path in LAZY_PATHS and not link.alt


def _take(image: Link, link: Link) -> bool:
    field = LAZY_PATHS[link.path or ""]
    if getattr(image, field):
        return False
    setattr(image, field, link.url)
    return True


def _alone(link: Link) -> LazyLink:
    image = LazyLink(SRC, None, link.alt)
    _take(image, link)
    return image

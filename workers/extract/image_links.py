"""The links of a WAT record, with images alone decoded: nine of ten links are others.

msgspec chooses a link's type by its ``path`` (a tagged union). Of an image URL and text are kept;
of any other path that is known nothing is, and msgspec passes over its strings, which takes half of
the time that ``links.link_reader`` takes.
"""

from collections.abc import Callable, Iterable
from functools import cache, reduce
from operator import or_
from typing import Any

import msgspec

from pairmill.workers.extract.link_kinds import IMAGE
from pairmill.workers.extract.links import PageLinks, page_of, read_checked, wat_type

PATH = IMAGE.paths[0]
# The caps are for files that are made to have many paths: Common Crawl's have about 30.
MAX_LEARNED = 256
MAX_LENGTH = 64  # characters of a path that is learned
# Usual paths. To learn one takes a record that is read twice, and a new decoder: 1 to 15 ms.
_KNOWN = (
    "A@/href", "AREA@/href", "BLOCKQUOTE@/cite", "BODY@/background", "DEL@/cite", "DIV@/style",
    "EMBED@/src", "FORM@/action", "FRAME@/src", "IFRAME@/src", "IMG@/longdesc", "INPUT@/src",
    "INS@/cite", "LINK@/href", "OBJECT@/codebase", "OBJECT@/data", "Q@/cite", "SCRIPT@/src",
    "SOURCE@/src", "STYLE/#text", "TABLE@/background", "TD@/background", "TRACK@/src", "VIDEO@/src",
)  # fmt: skip

Decoder = Callable[[bytes | bytearray], Any]
ReadPage = Callable[[bytes | bytearray], PageLinks | None]


class ImageLink(msgspec.Struct, gc=False, tag_field="path", tag=PATH):
    """An image: ``links.Link`` of this path."""

    url: str | None = None
    alt: str | None = None


class ImageReader:
    """Reads a record as ``links.link_reader`` does, but that a link which is no image has no
    members. A record that holds a path not seen before, or anything odd, is read by ``plain``,
    and its paths are learned.

    plain: a ``link_reader``. never: paths that are not to be passed over: they need ``plain``.
    """

    def __init__(self, plain: ReadPage, never: Iterable[str]) -> None:
        self._plain = plain
        self._never = frozenset(never)
        self._known = dict.fromkeys(_KNOWN)
        self._decode = _first_decoder()
        self._read_plainly = 0  # records
        self._learn_at = 1  # such a record; each time twice as far: a file costs few decoders

    def __call__(self, body: bytes | bytearray) -> PageLinks | None:
        """Raises BadRecord."""
        page = read_checked(body, self._decode)
        if page is None:
            page = self._plain(body)
            if page is not None:
                self._learn(link.path for link in page.links)
            return page
        return page_of(page, body)

    def _learn(self, paths: Iterable[str | None]) -> None:
        for path in paths:
            if len(self._known) == MAX_LEARNED:
                break
            # a lone surrogate, which is not printable, can be no tag
            if path and len(path) <= MAX_LENGTH and path.isprintable():
                self._known[path] = None
        self._read_plainly += 1
        if self._read_plainly == self._learn_at:
            self._learn_at *= 2
            self._decode = _decoder(path for path in self._known if path not in self._never)


@cache
def _first_decoder() -> Decoder:
    return _decoder(_KNOWN)


def _decoder(passed_over: Iterable[str]) -> Decoder:
    others = (
        msgspec.defstruct("Other", [], tag_field="path", tag=path, gc=False)
        for path in passed_over
        if path != PATH
    )
    links = reduce(or_, others, ImageLink)
    return msgspec.json.Decoder(wat_type(links)).decode

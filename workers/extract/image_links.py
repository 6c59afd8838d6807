"""The links of a WAT record, with images alone decoded: nine of ten links are others.

msgspec chooses a link's type by its ``path`` (a tagged union). Of an image URL and text are kept;
of any other path that is known nothing is, and msgspec passes over its strings, which takes half of
the time that ``links.link_reader`` takes.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Union

import msgspec

from pairmill.workers.extract.link_kinds import IMAGE
from pairmill.workers.extract.links import PageLinks, page_of, read_checked, wat_type

PATH = IMAGE.paths[0]
# Common Crawl's files have about 30 paths; the cap is for files that are made to have many
MAX_LEARNED = 256
MAX_LENGTH = 64  # characters of a path that is learned
# paths of nearly every page: to learn them would take as many records
_KNOWN = ("A@/href", "LINK@/href", "SCRIPT@/src", "FORM@/action", "IFRAME@/src", "STYLE/#text")

ReadPage = Callable[[bytes | bytearray], PageLinks | None]


class ImageLink(msgspec.Struct, gc=False, tag_field="path", tag=PATH):
    """An image; as ``links.Link`` with this path."""

    path: ClassVar[str] = PATH
    url: str | None = None
    alt: str | None = None


class ImageReader:
    """Reads a record as ``links.link_reader`` does, but that a link which is no image has no
    members. A record that holds a path not seen before, or anything odd, is read by ``plain``,
    and its paths are known from then on.

    plain: a ``link_reader``. never: paths that are not to be passed over: they need ``plain``.
    """

    def __init__(self, plain: ReadPage, never: Iterable[str]) -> None:
        self._plain = plain
        self._never = frozenset(never)
        self._known = dict.fromkeys(_KNOWN)
        self._decode = self._decoder()

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
        before = len(self._known)
        for path in paths:
            if len(self._known) == MAX_LEARNED:
                break
            if path and len(path) <= MAX_LENGTH and path != PATH and path not in self._never:
                self._known[path] = None
        if len(self._known) > before:
            self._decode = self._decoder()

    def _decoder(self) -> Callable[[bytes | bytearray], Any]:
        passed_over = [
            msgspec.defstruct("Other", [], tag_field="path", tag=path, gc=False)
            for path in self._known
        ]
        links = Union[(ImageLink, *passed_over)]  # type: ignore[valid-type]
        return msgspec.json.Decoder(wat_type(links)).decode

"""The kinds of links that are extracted. A further kind is one more declaration here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # the commands list the kinds without extraction's libraries
    from pairmill.workers.extract.links import Link

AnyLink = TypeVar("AnyLink", bound="Link")

ATTRIBUTES = ("alt", "text", "title")  # of a link in a WAT, that may describe its target


@dataclass(frozen=True, eq=False)
class LinkKind:
    """Which links of a page are of a kind, and which text goes with them.

    name: as mill.batch.link_kind has it. paths: element and attribute, as a WAT's ``path``
    names them; empty for any. endings: the URL's path must end in one of these, in lower
    case; empty for any. refused: nor in one of these, or the link is dropped (FILE_TYPE).
    text: the attributes whose first that is not empty is the text, of ``ATTRIBUTES``.
    lazy: further attributes of the same element that may name the URL, in the order in which they
    count: see ``images``. beside: their paths, where they are links of their own.

    A link is of the first kind, in the order of ``LINK_KINDS``, that names its path, else of the
    first that names its ending.
    """

    name: str
    paths: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    text: tuple[str, ...] = ("text", "title", "alt")
    lazy: tuple[str, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        elements = {path.partition("@")[0] for path in self.paths}
        return tuple(f"{element}@/{name}" for element in elements for name in self.lazy)

    def __post_init__(self) -> None:
        if not self.paths and not self.endings:
            raise ValueError(f"link kind {self.name} would take every link")


IMAGE = LinkKind(
    "image",
    paths=("IMG@/src",),
    refused=(".svg", ".gif", ".ico"),
    text=("alt",),
    lazy=(
        "data-src", "data-original", "data-lazy-src", "data-uri",
        "data-srcset", "data-lazy-srcset", "srcset",
    ),
)  # fmt: skip
# endings: cc2dataset's lists
AUDIO = LinkKind("audio", endings=(".ogg", ".wav", ".mp3", ".flac", ".m4a"))
VIDEO = LinkKind(
    "video", endings=(".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v")
)
DOCUMENT = LinkKind("document", endings=(".pdf", ".epub", ".djvu", ".mobi", ".doc", ".docx"))

# Of links that are not of a kind by themselves, but belong to one that is: see images.joined
BESIDE = LinkKind("beside", paths=IMAGE.beside)

LINK_KINDS = {kind.name: kind for kind in (IMAGE, AUDIO, VIDEO, DOCUMENT)}


class LinkSelection:
    """The kinds that an extraction takes. Raises ValueError for a name not in ``LINK_KINDS``."""

    def __init__(self, names: Iterable[str] = (IMAGE.name,)) -> None:
        names = set(names)
        unknown = sorted(names - LINK_KINDS.keys())
        if unknown or not names:
            listed = ", ".join(LINK_KINDS)
            raise ValueError(f"no link kind {', '.join(unknown)}; there are: {listed}")
        self.kinds = tuple(kind for kind in LINK_KINDS.values() if kind.name in names)
        self._by_path: dict[str | None, LinkKind] = {
            path: kind for kind in reversed(self.kinds) for path in kind.paths
        }
        self._by_path |= {path: BESIDE for kind in self.kinds for path in kind.beside}
        self._by_ending = {
            ending: kind
            for kind in reversed(self.kinds)
            for ending in kind.endings
            if not kind.paths
        }
        self.attributes = frozenset(name for kind in self.kinds for name in kind.text)

    def links(
        self, links: Iterable[AnyLink], decode: Callable[[str], str] | None = None
    ) -> list[tuple[AnyLink, LinkKind]]:
        """Those links of a page that are of a selected kind, each with its kind; or with ``BESIDE``
        where they give one of a kind's ``beside``.

        decode: of URLs, before their endings are looked at.
        """
        by_path = self._by_path.get
        if not self._by_ending:  # images alone: a tenth of the links, and nine tenths of the time
            return [(link, kind) for link in links if (kind := by_path(link.path))]
        by_ending = self._by_ending.get
        decode = decode or str
        return [
            (link, kind)
            for link in links
            if (kind := by_path(link.path) or by_ending(_ending(decode(link.url or ""))))
        ]


def _ending(url: str) -> str:
    path = url.partition("#")[0].partition("?")[0]
    return path[path.rfind(".") :].rstrip().lower()

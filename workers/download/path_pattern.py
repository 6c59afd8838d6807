"""Patterns of paths, as robots.txt, ai.txt and tdmrep.json have them, matched against a URL.

RFC 9309, 2.2.2 and 2.2.3; TDMRep, 4.1, is the same. A pattern is a path's beginning, with ``*`` for
anything and ``$`` for the path's end. Both sides are compared in one form: characters that need no
encoding are decoded and the others encoded, by UTF-8. ``/``, ``?``, ``#`` and ``%`` mean another
thing once encoded, so they stay as they are; ``*`` and ``$`` of a URL are what ``%2A`` and ``%24``
of a pattern stand for.
"""

import re
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

ORIGIN = re.compile(r"(?i)\A[a-z][a-z0-9+.-]*://[^/?#]*")
# a triplet, or what may not stand in the common form; * and $ are left to the caller
ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})|[^A-Za-z0-9._~!'()+,;=:@&/?\[\]*$-]")
COMMON = re.compile(r"/[A-Za-z0-9._~!'()+,;=:@&/?\[\]-]*")  # nothing of it needs a change
KEPT = b"/?#%*$"  # octets that stay encoded
KEPT_IN_QUERY = b"#%*$"  # where / and ? are characters as others are: RFC 9309's example


class Asked(NamedTuple):
    """A path with its query, in the common form. plain: as it was split; query: with ``/`` and
    ``?`` decoded after the first ``?``, for patterns that have one."""

    plain: str
    query: str


class PathPattern(NamedTuple):
    """length: octets of the common form, by which the most specific of several is chosen."""

    length: int
    first: str  # up to the first *
    others: tuple[str, ...]  # after each *
    whole: bool  # it ends in $
    has_query: bool

    def matches(self, asked: Asked) -> bool:
        """By parts and not as a regular expression, which a hostile file could make
        exponential."""
        path = asked.query if self.has_query else asked.plain
        if not path.startswith(self.first):
            return False
        at = len(self.first)
        for part in self.others:
            found = path.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        if not self.whole:
            return True
        return path.endswith(self.others[-1]) if self.others else at == len(path)


class Patterns(Generic[T]):
    """Patterns in the order in which they decide, each with what it says."""

    def __init__(self, patterns: Iterable[tuple[PathPattern, T]]) -> None:
        self._patterns = tuple(patterns)
        # a file has dozens, and most paths begin as none does: 1 µs for 50, and not 15
        self._firsts = tuple({pattern.first for pattern, _ in self._patterns})

    def first(self, asked: Asked) -> T | None:
        """What the first pattern that matches says; None if there is none."""
        plain, query = asked
        if not plain.startswith(self._firsts) and not query.startswith(self._firsts):
            return None
        return next((says for pattern, says in self._patterns if pattern.matches(asked)), None)


def path_pattern(text: str) -> PathPattern:
    """The pattern that a file's author wrote; some leave out the slash that a path begins with."""
    if not text.startswith(("/", "*", "$")):
        text = f"/{text}"
    whole = text.endswith("$")
    common = text.removesuffix("$")
    head, question, tail = common.partition("?")
    if not COMMON.fullmatch(common.replace("*", "")):
        common = _common(head) + question + _common(tail, KEPT_IN_QUERY)
        common = common.replace("$", "%24")
    first, *others = common.split("*")
    return PathPattern(len(common) + whole, first, tuple(others), whole, bool(question))


def asked_path(url: str) -> Asked:
    """The path of an absolute URL with its query, "/" where it has none."""
    path = ORIGIN.sub("", url, count=1).partition("#")[0]
    if COMMON.fullmatch(path):
        return Asked(path, path)
    head, question, tail = (path if path.startswith("/") else f"/{path}").partition("?")
    head = _verbatim(_common(head)) + question
    return Asked(head + _verbatim(_common(tail)), head + _verbatim(_common(tail, KEPT_IN_QUERY)))


def _verbatim(path: str) -> str:
    """A URL's own * and $ are no wildcards."""
    return path.replace("*", "%2A").replace("$", "%24")


def _common(path: str, kept: bytes = KEPT) -> str:
    def one(found: re.Match[bytes]) -> bytes:
        octet = bytes.fromhex(found[1].decode()) if found[1] else found[0]
        if found[1] and octet not in kept and not ESCAPED.match(octet):
            return octet
        return b"%%%02X" % octet[0]

    # surrogatepass: a lone one in JSON's \u escapes is no reason to fail
    return ESCAPED.sub(one, path.encode("utf-8", "surrogatepass")).decode("ascii")

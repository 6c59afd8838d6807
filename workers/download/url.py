"""A URL as a request needs it: the WHATWG URL standard, which browsers follow, as Ada has it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from ada_url import URL

PORTS = {"http": 80, "https": 443}
MAX_URL = 4096  # characters; a pair's has 2,048 at most, and a redirect may be longer
NOT_ASCII = re.compile("[\x80-\xff]")


@dataclass(frozen=True)
class Target:
    """scheme: http or https. host: in ASCII, as DNS has it; an IPv6 address without brackets. port:
    0 can be named, and never connected to. path: with the query. User names and fragments are in no
    request."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """What is asked for."""
        return self.origin + self.path


@lru_cache(maxsize=1024)  # a fetch asks for it three times
def parse(url: str, base: str | None = None) -> Target:
    """A URL, or a reference from a base. Raises ValueError for one that cannot be requested."""
    if len(url) > MAX_URL:
        raise ValueError(f"a URL of more than {MAX_URL} characters: {url[:200]}")
    href: str = URL(_scalars(url), base).href
    scheme, slashes, rest = href.partition("://")
    if scheme not in PORTS or not slashes:
        raise ValueError(f"not an http or https URL: {url[:200]}")
    authority, _, path = rest.partition("/")
    _, _, place = authority.rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):  # within an IPv6 address
        host, port = place, ""
    path = f"/{path.partition('#')[0]}"
    return Target(scheme, host.strip("[]"), int(port) if port else PORTS[scheme], path)


def redirected(url: str, location: str) -> str:
    """The URL that a reference means, found at another. Raises ValueError if it is none."""
    return parse(location, parse(url).url).url


def header_reference(value: str) -> str:
    """A Location's reference, of which ``value`` has a character for each byte. Servers send other
    bytes than ASCII raw; they are encoded one by one, as Chromium and curl do, so UTF-8 stays UTF-8
    and Latin-1 Latin-1: whatever the server meant, it gets its own bytes back."""
    return NOT_ASCII.sub(lambda byte: f"%{ord(byte[0]):02X}", value)


def _scalars(url: str) -> str:
    """Lone surrogates replaced, and pairs of them joined, as JavaScript's strings become URLs."""
    if url.isascii():
        return url
    return url.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

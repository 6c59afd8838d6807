"""A URL as a request needs it (RFC 3986, RFC 9110)."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit

# the characters that RFC 3986 lets stand in a path or query, and "%": most are encoded already
SAFE = "%/:?#[]@!$&'()*+,;=-._~"
PORTS = {"http": 80, "https": 443}
MAX_URL = 4096  # characters; a pair's has 2,048 at most, and a redirect may be longer


@dataclass(frozen=True)
class Target:
    """scheme: http or https. host: ASCII, as in the URL or by IDNA. path: with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


@lru_cache(maxsize=1024)  # a fetch asks for it three times
def parse(url: str) -> Target:
    """Raises ValueError for a URL that cannot be requested."""
    if len(url) > MAX_URL:
        raise ValueError(f"a URL of more than {MAX_URL} characters: {url[:200]}")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in PORTS or not parts.hostname:
        raise ValueError(f"not an http or https URL: {url[:200]}")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")  # its UnicodeError is a ValueError
    if any(c <= " " or c == "\x7f" for c in host):
        raise ValueError("a host with white space or control characters")
    path = _without_dots(quote(parts.path or "/", SAFE))
    if parts.query:
        path += f"?{quote(parts.query, SAFE)}"
    return Target(scheme, host, parts.port or PORTS[scheme], path)


def _without_dots(path: str) -> str:
    """Dot segments removed (RFC 3986, 5.2.4), as servers do: /x/../private is /private, and what
    robots.txt says of that holds."""
    path = path.replace("%2e", ".").replace("%2E", ".")
    if "/." not in path:
        return path
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    return "/" + "/".join(kept) + ("/" if parts[-1] in (".", "..") and kept else "")


def redirected(url: str, location: str) -> str:
    """The URL that a Location header means. Raises ValueError if it is none."""
    joined = urljoin(url, location.strip())
    parse(joined)
    return joined

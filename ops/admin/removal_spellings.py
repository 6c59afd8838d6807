"""The other spellings of a URL and of a host, for which requests are the same."""

import re
import unicodedata
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from pairmill.workers.extract.urls import MAX_LENGTH

_PORTS = {"http": 80, "https": 443}


def url_spellings(entry: str, main: str) -> list[str]:
    """The URL as given and as the extractor writes it; its host in Unicode and in ASCII; the port
    left out where it is the scheme's; dot segments resolved; characters beyond ASCII as they are
    and percent-encoded, in either case of the digits. Requests for them are the same."""
    found = dict.fromkeys(url for url in (entry.partition("#")[0], main) if _encodes(url))
    parts = urlsplit(main)
    user, at, place = parts.netloc.rpartition("@")
    host, colon, port = place.rpartition(":") if re.search(r":\d*$", place) else (place, "", "")
    ports = [colon + port]
    if colon and port in ("", str(_PORTS[parts.scheme])):
        ports.append("")
    path = parts._replace(scheme="", netloc="")
    paths = {urlunsplit(path): None, urljoin("/", urlunsplit(path)) if parts.path else "/": None}
    for written in list(paths):
        readable = _readable(written)
        upper = quote(readable, safe=_AS_IS)
        paths |= {readable: None, upper: None}
        paths[re.sub(r"%[89A-Fa-f][0-9A-Fa-f]", lambda c: c[0].lower(), upper)] = None
    for name in host_spellings(host):
        for ending in ports:
            for written in paths:
                url = f"{parts.scheme}://{user}{at}{name}{ending}{written}"
                if _encodes(url):
                    found[url] = None
    return list(found)


_AS_IS = "".join(map(chr, range(0x21, 0x7F)))


def _readable(path: str) -> str:
    """Percent-encoded UTF-8 beyond ASCII as characters."""

    def decoded(run: re.Match[str]) -> str:
        try:
            return unquote(run[0], errors="strict")
        except UnicodeDecodeError:
            return run[0]

    return re.sub(r"(?:%[89A-Fa-f][0-9A-Fa-f])+", decoded, path)


def _encodes(url: str) -> bool:
    """Whether it may be a pair's: a database's text can hold it."""
    return len(url) <= MAX_LENGTH and "\x00" not in url and not re.search("[\ud800-\udfff]", url)


def host_spellings(host: str) -> list[str]:
    """A host as it is, and in Unicode and in ASCII (IDNA): pages use either."""
    labels = unicodedata.normalize("NFC", host).split(".")
    readable = [_decoded(label) for label in labels]
    ascii_only = [
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in readable
    ]
    return list(dict.fromkeys((host, ".".join(readable), ".".join(ascii_only))))


def _decoded(label: str) -> str:
    try:
        readable = label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else ""
        return readable or label
    except UnicodeError:
        return label

"""Links resolved to absolute URLs, in one written form, or the reason why not."""

import re
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from pairmill.schema.outcomes import DropReason

MAX_LENGTH = 2_048  # characters of a resolved URL
_ENDING = 8  # characters of a path that hold any refused ending
# A longer reference is not resolved: urlsplit keeps its last 128 arguments in memory, and
# data: URIs have megabytes.
MAX_REFERENCE = 16_384

_C0_OR_SPACE = "".join(map(chr, range(0x21)))
_TAB_OR_NEWLINE = re.compile("[\t\n\r]")
# beyond C0: the inbox takes none
_CONTROL = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_TO_ENCODE = re.compile(f"[\x00-\x20{_CONTROL}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_USER = re.compile(r"^(https?://)[^/?]*@")
_EMPTY_HOST = re.compile(r"(?:https?:)?//(?:[/?#]|$)", re.I)
_FORBIDDEN_IN_HOST = re.compile(rf"[\s\x00-\x1f{_CONTROL}#%/<>?@\\^|]")

# The forms that are joined by hand; all others go to urljoin. If they are _plain too, they
# hold nothing that resolution or writing would change.
_ROOT = r"https?://[a-z0-9.-]+(?::[0-9]{1,4})?"
_PATH = r"[A-Za-z0-9._~%+,=@!$&'()*:/-]*"
_QUERY = r"(?:\?[A-Za-z0-9._~%+,=@!$&'()*:/;?-]+)?"
_RELATIVE = rf"[A-Za-z0-9_~%+,=@!$&'()*-][A-Za-z0-9._~%+,=@!$&'()*-]*(?:/{_PATH})?{_QUERY}"
_SIMPLE = re.compile(
    rf"(?P<absolute>{_ROOT}/{_PATH}{_QUERY})"
    rf"|(?P<network>//[a-z0-9.-]+(?::[0-9]{{1,4}})?/{_PATH}{_QUERY})"
    rf"|(?P<root>/(?!/){_PATH}{_QUERY})"
    rf"|(?P<relative>{_RELATIVE})"
    rf"|(?P<up>(?:\.\./)+{_RELATIVE})"
)
_USUAL = re.compile(rf"(?:{_ROOT})?/{_PATH}\.(?:jpe?g|png|webp|JPG){_QUERY}")
_USUAL_LENGTH = 1_000  # characters
# the page's own URL, as nearly all are: scheme, root and directory are its parts
_SIMPLE_PAGE = re.compile(
    rf"(?P<root>(?P<scheme>https?)://[a-z0-9.-]+(?::[0-9]{{1,4}})?)(?P<path>/{_PATH}){_QUERY}"
)


class Base:
    """What the links of one page are resolved against.

    page: the page's URL. head: the ``href`` of its ``<base>``, None without; it is
    resolved against the page. As in the HTML standard, a base that cannot be parsed or is
    a ``data:`` or ``javascript:`` URL counts as none.
    """

    def __init__(self, page: str, head: str | None = None) -> None:
        simple = _SIMPLE_PAGE.fullmatch(page) if head is None and len(page) <= MAX_LENGTH else None
        if simple is not None and _plain(page[8:]):
            self.url, self._root = page, simple["root"]
            self._directory = self._root + simple["path"][: simple["path"].rfind("/") + 1]
            self._set_before(simple["scheme"])
            return
        self.url = _joined("", _stripped(page)) or ""
        if head is not None:
            base = _joined(self.url, _stripped(head))
            if base and not re.match("(?:data|javascript):", base, re.I):
                self.url = base
        scheme, self._root, self._directory = _prefixes(self.url)
        self._set_before(scheme)

    def _set_before(self, scheme: str) -> None:
        """Of each form: what stands before such a URL, None where it is not known; and where its
        path may begin, behind the ``//`` of its authority."""
        self._before: dict[str | None, tuple[str | None, int]] = {
            "absolute": ("", 8),
            "network": (f"{scheme}:" if scheme else None, 2),
            "root": (self._root or None, 0),
            "relative": (self._directory or None, 0),
        }
        longest = MAX_LENGTH - _USUAL_LENGTH
        self._usual_root = self._root if len(self._root) <= longest else ""

    def resolve(self, reference: str) -> str | DropReason:
        """The absolute http(s) URL of a link, or why it has none.

        Resolution is RFC 3986's as ``urllib.parse.urljoin`` does it, after the WHATWG URL
        standard's cleaning: white space and C0 controls at both ends, and tabs and newlines
        anywhere, are dropped. Of the result the fragment is removed, scheme and host are in
        lower case, and spaces and control characters are percent-encoded; all else is
        kept as written, non-ASCII characters and letter case of the path too. It encodes as
        UTF-8, holds no NUL, and may be of any length.

        Gives DropReason.NO_URL, SCHEME, BAD_URL, or (a reference above 16,384 characters)
        URL_TOO_LONG. (DropReason is a str: ask with isinstance.)
        """
        return self._join(reference) or self._resolve(reference)

    def _resolve(self, reference: str) -> str | DropReason:
        """``resolve`` the long way."""
        url = _stripped(reference)
        if not url:
            return DropReason.NO_URL
        if len(url) > MAX_REFERENCE:
            scheme = _SCHEME.match(url)
            known = scheme is None or scheme[1].lower() in ("http", "https")
            return DropReason.URL_TOO_LONG if known else DropReason.SCHEME
        if _EMPTY_HOST.match(url):  # urljoin would take the base's host
            return DropReason.BAD_URL
        try:
            return _written(urlsplit(urljoin(self.url, url)))
        except ValueError:
            return DropReason.BAD_URL

    def resolve_file(self, reference: str, refused: tuple[str, ...]) -> str | DropReason:
        """``resolve``, and the rules for URLs to be downloaded: at most 2,048 characters
        (URL_TOO_LONG), and a path that ends in none of ``refused``, which are in lower case
        (FILE_TYPE)."""
        url = self._join(reference) or self._resolve(reference)
        if type(url) is DropReason:  # a fifth of isinstance's time, for an enumeration
            return url
        if len(url) > MAX_LENGTH:
            return DropReason.URL_TOO_LONG
        path = url.partition("?")[0] if "?" in url else url
        if path[-_ENDING:].lower().endswith(refused):
            return DropReason.FILE_TYPE
        return url

    def resolve_usual(self, reference: str) -> str | None:
        """What ``resolve_file`` gives for an image, in half of its time, if the reference is
        absolute or begins at the root, and ends as most names of images do; else None."""
        if len(reference) > _USUAL_LENGTH or not _USUAL.fullmatch(reference):
            return None
        root, authority = ("", 8) if reference[0] == "h" else (self._usual_root, 0)
        if reference.find("//", authority) >= 0 or reference.find("/.", authority) >= 0:
            return None  # not _plain, without the call
        return root + reference if root or authority else None

    def _join(self, url: str) -> str | None:
        """The same as the long way, a tenth of its time, for the usual forms; else None."""
        form = _SIMPLE.fullmatch(url) if len(url) <= MAX_LENGTH else None
        if form is None:
            return None
        if form.lastgroup == "up":
            path = url.lstrip("./")
            return self._above((len(url) - len(path)) // 3, path) if _plain(path) else None
        before, authority = self._before[form.lastgroup]
        if before is None or url.find("//", authority) >= 0 or url.find("/.", authority) >= 0:
            return None  # not _plain, without the call
        return before + url

    def _above(self, levels: int, path: str) -> str | None:
        """A path that is relative to the folder that lies so many levels above, or to the root."""
        folder = self._directory[:-1]
        while levels and len(folder) > len(self._root):
            folder = folder[: folder.rfind("/")]
            levels -= 1
        return f"{folder}/{path}" if folder else None


def page_url(written: str) -> str | None:
    """A page's own address, of at most 2,048 characters: of a longer one the first; None where it
    is no http(s) URL.

    As ``Base.resolve`` writes URLs, without user and password: a crawler's login is nobody's.
    """
    if len(written) <= MAX_LENGTH and _SIMPLE_PAGE.fullmatch(written) and _plain(written[8:]):
        return written  # as nearly all: 1 µs of 10
    url = Base("").resolve(written)
    return None if isinstance(url, DropReason) else _USER.sub(r"\1", url, count=1)[:MAX_LENGTH]


def _stripped(url: str) -> str:
    return _TAB_OR_NEWLINE.sub("", url.strip(_C0_OR_SPACE))


def _joined(base: str, url: str) -> str | None:
    try:
        joined = urljoin(base, url) if len(url) <= MAX_REFERENCE else ""
        urlsplit(joined)
    except ValueError:
        return None
    return joined


def _plain(path: str) -> bool:
    """No segment is empty, or begins with a dot as ``.`` and ``..`` do."""
    return "//" not in path and "/." not in path


def _prefixes(url: str) -> tuple[str, str, str]:
    """What stands before a network, a root and a relative reference; empty unless simple."""
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}"
    if not re.fullmatch(_ROOT, root):
        return "", "", ""
    path = parts.path[: parts.path.rfind("/") + 1] or "/"
    simple = _plain(path) and re.fullmatch(f"/(?:{_PATH}/)?", path)
    return parts.scheme, root, root + path if simple else ""


def _written(parts: SplitResult) -> str | DropReason:
    """A split absolute URL in the form that is stored. Raises ValueError for a bad port."""
    if parts.scheme not in ("http", "https"):
        return DropReason.SCHEME if parts.scheme else DropReason.BAD_URL
    user, at, host = parts.netloc.rpartition("@")
    if not parts.hostname or parts.port == 0 or _FORBIDDEN_IN_HOST.search(host):
        return DropReason.BAD_URL
    url = urlunsplit((parts.scheme, user + at + host.lower(), parts.path, parts.query, ""))
    if _SURROGATE.search(url):
        return DropReason.BAD_URL
    return _TO_ENCODE.sub(lambda c: "".join(f"%{octet:02X}" for octet in c[0].encode()), url)

"""HTML character references (``&amp;``, ``&#38;``) in what a WAT holds of a page.

The HTML standard decodes attributes by other rules than text (13.2.5.72, the character reference
state): in ``?a=1&copy=2`` the ``&copy`` is none. ``html.unescape`` has the rules of text only,
drops what HTML keeps (``&#1;``), and raises ValueError for a number of more than 4,300 digits.
"""

import re
from collections.abc import Callable
from html.entities import html5

Decode = Callable[[str], str]

_REFERENCE = re.compile(r"&(?:#(?:[xX]([0-9A-Fa-f]+)|([0-9]+))|([A-Za-z][A-Za-z0-9]{0,31}))(;?)")
_ALNUM_OR_EQUALS = re.compile(r"[A-Za-z0-9=]")
# a name that needs no ``;`` has at most this many characters (``&frac12``, ``&Aacute``)
_BARE = max(len(name) for name in html5 if not name.endswith(";"))
_REPLACEMENT = "\ufffd"
# Numbers of 0x80 to 0x9f mean windows-1252; the five that it lacks stay control characters.
_WINDOWS_1252 = {n: bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(0x80, 0xA0)}


def in_attribute(value: str) -> str:
    """An attribute's value as a browser has it, its references decoded once.

    A name without ``;`` counts only where neither ``=`` nor an ASCII letter or digit follows.
    """
    return _REFERENCE.sub(_attribute, value) if "&" in value else value


def in_text(text: str) -> str:
    """Text between tags as a browser has it: of ``&notit`` the longest name, ``&not``, counts."""
    return _REFERENCE.sub(_text, text) if "&" in text else text


def complete_only(url: str) -> str:
    """A URL with the references decoded that end in ``;``. One without may be a parameter
    (``&lt=5``), also where HTML would take it for a reference (``&lt`` at the end)."""
    return _REFERENCE.sub(_complete, url) if "&" in url else url


def _attribute(found: re.Match[str]) -> str:
    if not found[3]:
        return _number(found)
    if found[4]:
        return html5.get(found[3] + ";", found[0])
    if _ALNUM_OR_EQUALS.match(found.string, found.end()):
        return found[0]
    return html5.get(found[3], found[0])


def _text(found: re.Match[str]) -> str:
    if not found[3]:
        return _number(found)
    whole = html5.get(found[3] + found[4])
    if whole is not None:
        return whole
    for end in range(min(_BARE, len(found[3])), 1, -1):
        if found[3][:end] in html5:
            return html5[found[3][:end]] + found[3][end:] + found[4]
    return found[0]


def _complete(found: re.Match[str]) -> str:
    return _attribute(found) if found[4] else found[0]


def _number(found: re.Match[str]) -> str:
    """HTML's numeric character reference end state: no NUL, no surrogate, nothing out of range."""
    digits = (found[1] or found[2]).lstrip("0")
    if not 0 < len(digits) <= 7:
        return _REPLACEMENT
    code = int(digits, 16 if found[1] else 10)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return _REPLACEMENT
    return _WINDOWS_1252.get(code) or chr(code)

"""Text from outside, made safe to show: in a line of a terminal or a log, in JSON and in Markdown.

A URL, an alt text, a reason, a worker's name or a server's message may hold anything. Shown, it is
never markup, never a terminal's control sequence and never a line of its own. Commands and workers
print such text through ``say`` or ``json_text``, or as a cell made by ``safe``; a README has it as
``markdown`` makes it.
"""

import json
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

# Shown as escapes: controls (C0 with newline and tab, DEL, C1), lone surrogates, noncharacters,
# separators of lines and paragraphs, bidi marks, embeddings, overrides and isolates, and what
# nobody sees (zero-width, soft hyphen, fillers, tags). tests/unit/test_safe_text.py checks these
# against Unicode's categories.
_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    r"\U000e01f0-\U000e0fff"
    + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(1, 17))
)
_VARIATION = r"\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINER = r"\u200c\u200d"
# Persian, the scripts of India and emoji need joiners and variation selectors: one of each stays
# after a character beyond ASCII. Elsewhere, or several in a row, they only make look-alikes.
_SHOWN = (
    rf"[^\x00-\x7f{_HIDDEN}{_VARIATION}{_JOINER}](?:[{_VARIATION}][{_JOINER}]?|[{_JOINER}])"
    r"|[0-9#*]\ufe0f(?=\u20e3)"
)
_TEXT = re.compile(rf"(?P<shown>{_SHOWN})|[{_HIDDEN}{_VARIATION}{_JOINER}]")
# mill.plain and schema/tables/base.py have the same
_REFUSED = re.compile(
    "[\x01-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# an underscore within a word marks nothing
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&#~]|(?<!\w)_|_(?!\w)")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def safe(value: object, limit: int | None = None) -> str:
    r"""The text of a value as one line that shows what it holds.

    Control characters, line ends, bidi controls and invisible characters become escapes (``\n``,
    ``\x1b``, ``\u202e``); letters of all scripts, combining marks and emoji stay. No backslash is
    doubled: the result is for eyes, not for a parser. limit: characters, of which the last is "…"
    where more follow.
    """
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return _TEXT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    if found["shown"]:
        return found[0]
    code = ord(found[0])
    digits = (
        f"x{code:02x}" if code < 0x100 else f"u{code:04x}" if code < 0x10000 else f"U{code:08x}"
    )
    return _NAMED.get(found[0], f"\\{digits}")


def plain(text: str) -> str:
    """A text as the database takes it: one line, a space for each run of white space, U+FFFD for
    each control character, bidi control and lone surrogate, and none for NUL."""
    return _REFUSED.sub("\ufffd", " ".join(text.replace("\0", "").split()))


def say(sentence: str, *values: object, err: bool = False, end: str = "\n") -> None:
    """Print a sentence, made safe, as one line, at once; an f-string, or a template of
    ``str.format`` and its values. err: on standard error."""
    line = safe(sentence.format(*values) if values else sentence)
    print(line, file=sys.stderr if err else sys.stdout, end=end, flush=True)


def say_page(text: str, *, err: bool = False) -> None:
    """Print a text of several lines, each made safe."""
    for line in text.removesuffix("\n").split("\n"):
        say(line, err=err)


def say_traceback(error: BaseException) -> None:
    """The traceback on standard error, indented: no line of it passes for a line of a log."""
    for lines in traceback.format_exception(error):
        for line in lines.splitlines():
            say(f"    {line}", err=True)


def markdown(value: object) -> str:
    """The text of a value within a line of Markdown: no heading, link, image, HTML or cell of a
    table begins or ends in it. A URL that stands in it may still become a link to itself."""
    return _MARKDOWN.sub(r"\\\g<0>", safe(value))


def json_text(
    value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    r"""A value as JSON that keeps it whole and is safe on a terminal: characters that ``safe``
    would escape are written ``\u202e``, the others as they are."""
    return safe_json(json.dumps(value, indent=indent, default=default, ensure_ascii=False))


def safe_json(text: str) -> str:
    """Text that is JSON already, the same values in it; its own line ends stay."""
    return "\n".join(_TEXT.sub(_json_escaped, line) for line in text.split("\n"))


def _json_escaped(found: re.Match[str]) -> str:
    return found[0] if found["shown"] else json.dumps(found[0])[1:-1]

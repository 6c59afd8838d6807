"""Alt text as it is kept."""

import re

from pairmill.workers.extract.references import Decode, in_attribute

MIN_LENGTH = 5  # characters, as LAION; or Latin ones that say as much: ``weight``
MAX_LENGTH = 2_000

# Control characters (category Cc) but tab, LF, FF and CR, which are white space; lone
# surrogates, which UTF-8 cannot hold; and of the format characters (Cf) those that show
# nothing in one line of text: the bidi controls (Unicode's property Bidi_Control), soft
# hyphen, zero width space, word joiner and byte order mark. ZWJ and ZWNJ stay: they are
# spelling in Persian and Indic scripts, and hold emoji together. So do all other Cf.
_REMOVED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff"
    "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)

# Latin characters that say as much as one of a script, in quarters, which sum without rounding;
# measured on translated messages (docs/decisions/2026-11-26-lengths-by-script.md). A script that is
# not here says at most a quarter more than Latin, or less: Thai, Lao, Khmer and Arabic among them.
# schema/sql/core/text.sql has the same.
_WEIGHTS = tuple(
    (weight, re.compile(f"[{characters}]"))
    for weight, characters in (
        (3.0, "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"),  # Han
        (1.75, "\uac00-\ud7a3"),  # Hangul
        (1.5, "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"),  # Katakana
        # Hiragana, Hebrew, Ethiopic
        (1.25, "\u3041-\u3096\u309d-\u309f\u05d0-\u05ea\u1200-\u139f\u2d80-\u2ddf\uab00-\uab2f"),
    )
)


def weight(text: str) -> float:
    """How many Latin characters say about as much as ``text``: its length, or more."""
    if text.isascii():
        return float(len(text))
    return len(text) + sum((each - 1) * len(found.findall(text)) for each, found in _WEIGHTS)


def clean_text(alt: str, decode: Decode | None = in_attribute) -> str:
    """An alt attribute as text: one line, without control characters, stripped.

    decode: of its HTML character references, once; None where its file has them decoded. Then
    control characters are removed, and each run of white space (HTML's and Unicode's, no-break
    space included) becomes one space. Any string is accepted; the result can be encoded as
    UTF-8, holds no NUL, and may be empty. Cleaning text that holds no ``&`` a second time changes
    nothing.
    """
    if decode and "&" in alt:
        alt = decode(alt)
    # Most texts are printable: no control or format character, no white space but U+0020.
    if alt.isprintable() and "  " not in alt:
        return alt.strip(" ")
    return " ".join(_REMOVED.sub("", alt).split())

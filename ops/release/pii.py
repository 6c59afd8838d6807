"""Personal data in alt texts, found by rule: e-mail addresses, phone numbers, IBANs, cards, keys.

A number is found by its checksum or numbering plan (stdnum, phonenumbers), not by its shape: texts
are full of ISBNs, part numbers and sizes. tests/unit/test_pii.py has the rules' hits and misses.
"""

import re
from collections.abc import Callable, Iterator

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from stdnum import iban, luhn

from pairmill.ops.release.pii_kinds import KINDS, mask

_EMAIL = re.compile(
    r"(?<![\w.+%@-])[\w.+%-]{1,64}@((?:[\w-]{1,63}\.){1,8}([^\W\d_]{2,24}))(?![\w@-]|\.\w)"
)
# image@2x.png: a density's suffix and a file's ending, no mail host
_FILE_ENDINGS = frozenset(
    ("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "tif", "tiff", "avif", "heic", "ico", "pdf")
)
_PLUS = re.compile(r"(?<![\w.+/-])(?:\+|00)[1-9][\d\s().\u00a0/-]{6,20}\d(?![\w/-]|\.\d)")
# (212) 555-0123 and 212-555-0123; a plain run of ten digits is an article's number as often
_AMERICAN = re.compile(
    r"(?<![\w.+/-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w/-]|\.\d)"
)
_SAID = re.compile(
    r"\b(?:tel|tél|phone|telephone|telefon|telefono|teléfono|telefone|téléphone|call|mobile|mobil|"
    r"cell|fax|handy|whatsapp|hotline|тел|телефон)\b[^\w+(]{0,4}((?:\(0?\d|0\d|\d)[\d\s().\u00a0/-]{5,18}\d)"
    r"(?![\w/-]|\.\d)",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?!\w)")
_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
# Visa, Mastercard, American Express, Discover, Diners, JCB, UnionPay (ISO/IEC 7812 ranges)
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"
    r"3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|"
    r"62\d{14,17}"
)
# shapes that the issuers publish for scanners of secrets
_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z2-7]{16}|gh[pousr]_[A-Za-z0-9]{36}|"
    r"github_pat_[A-Za-z0-9_]{82}|glpat-[A-Za-z0-9_-]{20}|AIza[A-Za-z0-9_-]{35}|"
    r"xox[abprs]-[A-Za-z0-9-]{10,72}|[rs]k_live_[A-Za-z0-9]{24,99}|sk-(?=[\w-]*[A-Z])(?=[\w-]*\d)[A-Za-z0-9_-]{32,200}|"
    r"hf_[A-Za-z]{34}|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,200}|"
    r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})(?![A-Za-z0-9])"
    r"|-----BEGIN (?:RSA |EC |OPENSSH |DSA |PGP )?PRIVATE KEY"
)
# what every hit has, in RE2: 0.2 us a text, and 3 us with the rules for the 6 % that have it
_POSSIBLE = (
    r"@|\d(?:[\s().\x{a0}/-]*\d){6}|[A-Z]{2}\d{2}[ -]?[A-Z0-9]|AKIA|ASIA|gh[pousr]_|"
    r"github_pat_|glpat-|xox|[rs]k_live_|sk-|hf_|npm_|pypi-|eyJ|PRIVATE KEY|AIza"
)
# the country of a number that is written without its code, of texts in these languages
_COUNTRY = {
    "cs": "CZ", "da": "DK", "de": "DE", "el": "GR", "en": "US", "es": "ES", "fi": "FI", "fr": "FR",
    "hu": "HU", "it": "IT", "ja": "JP", "ko": "KR", "nl": "NL", "no": "NO", "pl": "PL", "pt": "PT",
    "ro": "RO", "ru": "RU", "sv": "SE", "tr": "TR", "uk": "UA", "zh": "CN",
}  # fmt: skip


def kinds_of(text: str, language: str | None = None) -> list[str]:
    """The kinds of personal data in a text, in the order of ``KINDS``. language: its code, which
    tells the country of phone numbers without one."""
    return [kind for kind, found in zip(KINDS, _RULES, strict=True) if found(text, language)]


class PersonalData:
    """An annotator: of each text the bits of the kinds that are in it, int16."""

    column = "pii"
    kind = pa.int16()
    needs = ("text", "language")

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        texts, languages = rows["text"], rows["language"]
        possible = pc.match_substring_regex(texts, _POSSIBLE)
        at = pc.indices_nonzero(pc.fill_null(possible, False))
        bits = [0] * len(texts)
        for i, text, language in zip(
            at.to_pylist(), texts.take(at).to_pylist(), languages.take(at).to_pylist(), strict=True
        ):
            bits[i] = mask(kinds_of(text, language))
        return pa.array(bits, self.kind)


def _has_email(text: str, language: str | None) -> bool:
    return any(m[2].lower() not in _FILE_ENDINGS for m in _EMAIL.finditer(text))


def _has_phone(text: str, language: str | None) -> bool:
    return any(_is_phone(number, country) for number, country in _numbers(text, language))


def _numbers(text: str, language: str | None) -> Iterator[tuple[str, str | None]]:
    for found in _PLUS.finditer(text):
        yield re.sub("^00", "+", found[0]), None
    for found in _AMERICAN.finditer(text):
        yield found[0], "US"
    for found in _SAID.finditer(text):
        yield found[1], _COUNTRY.get((language or "en").partition("-")[0])


def _is_phone(number: str, country: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, country))
    except phonenumbers.NumberParseException:
        return False


def _has_iban(text: str, language: str | None) -> bool:
    # words in capitals may follow: the checksum tells where it ends
    return any(
        iban.is_valid(candidate)
        for found in _IBAN.finditer(text)
        for candidate in _shorter(re.sub("[ -]", "", found[0]))
    )


def _shorter(number: str) -> Iterator[str]:
    yield from (number[:length] for length in range(len(number), 14, -1))


def _has_card(text: str, language: str | None) -> bool:
    for found in _CARD.finditer(text):
        digits = re.sub("[ -]", "", found[0])
        # three different digits at most: 4111 1111 1111 1111 is everybody's placeholder
        if _ISSUERS.fullmatch(digits) and luhn.is_valid(digits) and len(set(digits)) > 3:
            return True
    return False


def _has_key(text: str, language: str | None) -> bool:
    return _KEYS.search(text) is not None


_RULES: tuple[Callable[[str, str | None], bool], ...] = (
    _has_email, _has_phone, _has_iban, _has_card, _has_key,
)  # fmt: skip

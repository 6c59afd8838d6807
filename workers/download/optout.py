"""Opt-outs of web sites from being collected, read from their files and headers.

Pure functions: text in, Evidence or None out. Nothing here asks the network.

Sources: robots.txt, RFC 9309; tdmrep.json and the tdm-reservation header, TDMRep (W3C Community
Group Final Report, 2024-02-02); ai.txt, Spawning's format, a robots.txt for what may be learnt
from; X-Robots-Tag, as search engines document it, with noai and noimageai (DeviantArt, 2022) and
noml; Content-Usage, draft-ietf-aipref-attach with the labels of draft-ietf-aipref-vocab.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from protego import Protego

AGENT = "pairmill"  # our product token, in robots.txt and X-Robots-Tag
ROBOTS, TDMREP, AI = "robots.txt", "tdmrep.json", "ai.txt"
# in the order in which they are asked for
FILES = {ROBOTS: "/robots.txt", TDMREP: "/.well-known/tdmrep.json", AI: "/ai.txt"}
MAX_FILE_BYTES = 500 * 1024  # RFC 9309, 2.5: at least so much of robots.txt is parsed
# more than this many for us are not matched one by one: 20,000 took 5 s for a long URL
MAX_RULES, TOO_MANY_RULES = 5000, "more than 5,000 rules"
USAGE_RULE = "content-usage"  # in a group of robots.txt; draft-ietf-aipref-attach
MAX_VALUE = 500  # characters of a piece of evidence
REFUSING_TAGS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "noml", "none"))
# directives with a value, whose colon follows no agent's name
AGENT_NAME = re.compile(r"[a-z0-9_-]+")  # and not the rest of a date with a comma in it
VALUED_TAGS = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
# the labels of the vocabulary's revisions -00 to -05 that cover training; later ones may add
CONTENT_USAGE = "Content-Usage"
REFUSING_USES = frozenset(("train-ai", "ai", "genai", "tdm", "bots"))


@dataclass(frozen=True)
class Evidence:
    """A refusal as it was read. signal: robots.txt, tdmrep.json, ai.txt, X-Robots-Tag,
    tdm-reservation or Content-Usage. value: the rule, at most 500 characters. source: the URL that
    it was read from. read_at: when, in seconds of time.time()."""

    signal: str
    value: str
    source: str
    read_at: float


def condensed(file: str, text: str) -> str:
    """The part of a file that concerns us, to be kept; "" where it forbids nothing.

    Of robots.txt and ai.txt the rules of the groups for our agent, or of those for every agent;
    groups for one agent are one (RFC 9309, 2.2.1). Of tdmrep.json its locations.
    """
    return _condensed_tdmrep(text) if file == TDMREP else _condensed_robots(text)


def refusal(file: str, rules: str, url: str) -> str | None:
    """The rule of a condensed file that forbids this URL, or None."""
    if not rules:
        return None
    return _tdmrep_refusal(rules, url) if file == TDMREP else _robots_refusal(rules, url)


def header_refusal(lines: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(signal, value) of the first header that forbids, or None. lines: (name in lower case,
    value), one for each line of the header section."""
    for name, value in lines:
        if name == "x-robots-tag" and (found := _tag_refusal(value)):
            return "X-Robots-Tag", found[:MAX_VALUE]
        if name == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation", "1"
        if name == "content-usage" and (found := _usage_refusal(value)):
            return CONTENT_USAGE, found[:MAX_VALUE]
    return None


# ---- robots.txt and ai.txt ---------------------------------------------------------------------


def _condensed_robots(text: str) -> str:
    groups: dict[str, list[str]] = {}
    agents: list[str] = []
    in_rules = False
    for line in text.lstrip("\ufeff").splitlines():
        name, colon, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon:
            continue
        if name == "user-agent":
            if in_rules:
                agents, in_rules = [], False
            agents.append(_product(value))
            groups.setdefault(agents[-1], [])
        elif name in ("allow", "disallow", USAGE_RULE):
            in_rules = True
            for agent in agents:
                groups[agent].append(f"{name}: {value}")
    rules = groups.get(AGENT, groups.get("*", []))
    if len(rules) > MAX_RULES:
        return TOO_MANY_RULES
    forbids = any((r.startswith("disallow: ") and r[10:]) or _usage_of(r) for r in rules)
    return "\n".join(rules) if forbids else ""


def _usage_of(rule: str) -> tuple[str, str] | None:
    """(path pattern, refusal) of a content-usage rule that refuses: ``content-usage: /img
    train-ai=n``; the pattern may be absent. None for any other rule."""
    name, _, value = rule.partition(": ")
    if name != USAGE_RULE:
        return None
    pattern, _, usage = value.rpartition(" ") if value.startswith("/") else ("/", "", value)
    found = _usage_refusal(usage)
    return (pattern.strip(), found) if found else None


def _product(value: str) -> str:
    """The product token of a user-agent line, in lower case; some write a version after it."""
    found = re.match(r"\*|[a-zA-Z_-]+", value)
    return found[0].lower() if found else value.lower()


def _parse(rules: str) -> Protego:
    return Protego.parse(f"User-agent: *\n{rules}\n")


# 50 rules take 0.13 ms to parse and 50 KB; 500 KiB of them 200 ms and 17 MB: two of those are kept
_parsed = lru_cache(maxsize=64)(_parse)
_parsed_large = lru_cache(maxsize=2)(_parse)


def _robots_refusal(rules: str, url: str) -> str | None:
    if rules == TOO_MANY_RULES:
        return TOO_MANY_RULES
    if USAGE_RULE in rules:
        for usage in filter(None, map(_usage_of, rules.splitlines())):
            if _matches(usage[0], _path(url)):
                return f"{USAGE_RULE}: {usage[0]} {usage[1]}"[:MAX_VALUE]
    parsed = _parsed(rules) if len(rules) <= 8192 else _parsed_large(rules)
    if parsed.can_fetch(url, AGENT):
        return None
    # which one it was the library does not say: the longest that matches
    path = _path(url)
    forbidding = [r for r in rules.splitlines() if r.startswith("disallow: ")]
    matching = [r for r in forbidding if _matches(r[10:], path)]
    return max(matching, key=len, default="disallow")[:MAX_VALUE]


# ---- tdmrep.json -------------------------------------------------------------------------------


def _condensed_tdmrep(text: str) -> str:
    try:
        found = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):  # a page of HTML with status 200 is no statement
        return ""
    if not isinstance(found, list):
        return ""
    kept = [
        [entry["location"], 1 if entry.get("tdm-reservation") in (1, "1", True) else 0]
        for entry in found
        if isinstance(entry, dict) and isinstance(entry.get("location"), str)
    ]
    return json.dumps(kept) if any(reserved for _, reserved in kept) else ""


def _tdmrep_refusal(rules: str, url: str) -> str | None:
    """The first location that matches decides. Patterns are those of robots.txt."""
    path = _normal(_path(url))
    try:
        locations = [(str(location), bool(reserved)) for location, reserved in json.loads(rules)]
    except (ValueError, TypeError, RecursionError):  # rules come from other workers, too
        return None
    for location, reserved in locations:
        if _matches(_normal(location), path):
            value = f"tdm-reservation 1 for {location}"
            return value[:MAX_VALUE] if reserved else None
    return None


def _normal(path: str) -> str:
    """With the same characters percent-encoded, however it was written."""
    return quote(
        unquote(path, errors="surrogateescape"), "/*$?&=;:@!'()+,~-._", errors="surrogateescape"
    )


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _matches(pattern: str, path: str) -> bool:
    """Whether a path begins with the pattern, with * for anything and $ for the path's end. By
    parts and not as a regular expression, which a hostile file could make exponential."""
    whole = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for part in others:
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if not whole:
        return True
    return path.endswith(others[-1]) if others else at == len(path)


# ---- headers -----------------------------------------------------------------------------------


def _tag_refusal(value: str) -> str | None:
    """A directive counts if it stands before any agent's name, or after ours."""
    agent = "*"
    for part in value.lower().split(","):
        name, colon, rest = part.strip().partition(":")
        directive = part.strip()
        if colon and AGENT_NAME.fullmatch(name.strip()) and name.strip() not in VALUED_TAGS:
            agent, directive = name.strip(), rest.strip()
        if agent in ("*", AGENT) and directive in REFUSING_TAGS:
            return directive if agent == "*" else f"{agent}: {directive}"
    return None


def _usage_refusal(value: str) -> str | None:
    """Content-Usage is a dictionary of structured fields (RFC 9651): ``train-ai=n, search=y``."""
    for part in value.lower().split(","):
        label, _, preference = part.partition(";")[0].partition("=")
        if label.strip() in REFUSING_USES and preference.strip() == "n":
            return f"{label.strip()}=n"
    return None

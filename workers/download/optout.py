"""Opt-outs of web sites from being collected, read from their files.

Pure functions: text in, the rule or None out. Nothing here asks the network. Headers and pages are
``workers.directives``'s.

Sources: robots.txt, RFC 9309; tdmrep.json, TDMRep (W3C Community Group Final Report, 2024-02-02);
ai.txt, Spawning's format, a robots.txt for what may be learnt from. docs/opt-outs.md has all rules.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pairmill.workers.directives import MAX_VALUE
from pairmill.workers.download.path_pattern import Patterns, asked_path, path_pattern
from pairmill.workers.download.robots import (
    MAX_RULES,
    TOO_MANY_RULES,
    condensed_robots,
    robots_refusal,
)

ROBOTS, TDMREP, AI = "robots.txt", "tdmrep.json", "ai.txt"
# in the order in which they are asked for
FILES = {ROBOTS: "/robots.txt", TDMREP: "/.well-known/tdmrep.json", AI: "/ai.txt"}
MAX_FILE_BYTES = 500 * 1024  # RFC 9309, 2.5: at least so much of robots.txt is parsed


@dataclass(frozen=True)
class Evidence:
    """A refusal as it was read. signal: robots.txt, tdmrep.json, ai.txt, or a header's name as
    ``directives.header_refusal`` gives it. value: the rule, at most 500 characters. source: the URL
    that it was read from. read_at: when, in seconds of time.time()."""

    signal: str
    value: str
    source: str
    read_at: float


def text_of(file: str, body: bytes) -> str:
    """A file's text, whatever its bytes are: UTF-16 by its mark, else UTF-8 with other octets
    as lone surrogates (PEP 383). Of a body that is longer than ``MAX_FILE_BYTES``, lines that are
    whole: what was left of the one that was cut would be another rule."""
    if len(body) > MAX_FILE_BYTES:
        body = body[: MAX_FILE_BYTES + 1]
        if file != TDMREP:  # whose items are read as far as they go
            body = body[: max(body.rfind(b"\n"), body.rfind(b"\r"), 0)]
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return body.decode("utf-16", "replace")
    return body.decode("utf-8", "surrogateescape")


def condensed(file: str, text: str) -> str:
    """The part of a file that concerns us, to be kept; "" where it forbids nothing.

    Of robots.txt and ai.txt the rules of the groups for our agent, or of those for every agent.
    Of tdmrep.json its locations.
    """
    return _condensed_tdmrep(text) if file == TDMREP else condensed_robots(text)


def refusal(file: str, rules: str, url: str) -> str | None:
    """The rule of a condensed file that forbids this URL, or None."""
    if not rules:
        return None
    return _tdmrep_refusal(rules, url) if file == TDMREP else robots_refusal(rules, url)


# ---- tdmrep.json -------------------------------------------------------------------------------


def _condensed_tdmrep(text: str) -> str:
    kept = []
    for entry in _entries(text):
        if not isinstance(entry, dict) or not isinstance(location := entry.get("location"), str):
            continue
        reservation = entry.get("tdm-reservation")
        if isinstance(reservation, str):
            reservation = reservation.strip()
        # any other value is a protocol error, and is unset (TDMRep, 3.1)
        if reservation in (1, "1", 0, "0"):
            kept.append([location, 1 if reservation in (1, "1") else 0])
    if len(kept) > MAX_RULES:
        return TOO_MANY_RULES
    return json.dumps(kept) if any(reserved for _, reserved in kept) else ""


def _entries(text: str) -> Iterator[object]:
    """The items of a JSON array, or an object alone, as far as they can be read: an array that was
    cut, or has a comma too many, still says what it says. A page of HTML with status 200 has
    none."""
    text = text.lstrip("\ufeff \t\r\n")
    if text.startswith("{"):
        text = f"[{text}"
    decoder, at = json.JSONDecoder(), 1
    while text.startswith("["):
        while at < len(text) and text[at] in ", \t\r\n":
            at += 1
        try:
            entry, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield entry


def _tdmrep_refusal(rules: str, url: str) -> str | None:
    """The first location that matches decides (TDMRep, 4.1)."""
    if rules == TOO_MANY_RULES:
        return TOO_MANY_RULES
    return _locations(rules).first(asked_path(url))


@lru_cache(maxsize=16)
def _locations(rules: str) -> Patterns[str | None]:
    try:
        return Patterns(
            (path_pattern(location), _reserved(location) if reserved else None)
            for location, reserved in json.loads(rules)
        )
    except (ValueError, TypeError, AttributeError, RecursionError):  # another worker's, made up
        return Patterns(())


def _reserved(location: str) -> str:
    # JSON may escape what UTF-8 cannot hold
    where = location.encode("utf-8", "replace").decode()
    return f"tdm-reservation 1 for {where}"[:MAX_VALUE]

"""Opt-outs that come with a response or stand in a page: header fields and <meta> elements.

Pure functions, for every kind of worker: lines in, the first refusal out, or None. The statements
of use (Content-Usage, Content-Signal) are read for robots.txt too, which may hold them.

Sources: X-Robots-Tag and meta robots, as search engines document them, with noai and noimageai
(DeviantArt, 2022) and noml; Robots-Tag, draft-illyes-repext; tdm-reservation, TDMRep (W3C Community
Group Final Report, 2024-02-02); Content-Usage, draft-ietf-aipref-attach with the labels of
draft-ietf-aipref-vocab; Content-Signal, contentsignals.org. docs/opt-outs.md says it in prose.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

AGENT = "pairmill"  # our product token, in robots.txt, X-Robots-Tag and meta
EVERYBODY = ("*", "robots")
MAX_VALUE = 500  # characters of a piece of evidence

REFUSING_TAGS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "noml", "none"))
# a name before a colon is one of these or an agent's
OTHER_TAGS = frozenset(
    (
        "all", "index", "follow", "nofollow", "archive", "noarchive", "snippet", "nosnippet",
        "cache", "nocache", "notranslate", "noodp", "noydir", "indexifembedded",
    )
)  # fmt: skip
# max-image-preview:none is no "none", and a date has commas and colons of its own. Each word is
# looked at once: 60 KB of ``max-max-…`` took 25 s, in which a worker did nothing else
VALUED_TAG = re.compile(
    r"(?<![a-z-])max-[a-z-]++\s*+[:=]\s*[a-z0-9-]*"
    r"|unavailable_after\s*[:=]\s*([a-z]+(\s+\d+)?\s*,)?[^,;]*"  # Wed, 25 Jun 2030; June 25, 2030
)
NAMED = re.compile(r"([^:=]*)[:=](.*)", re.DOTALL)  # Robots-Tag has ``agent=``

# labels of the vocabulary, revisions -01 to -07, and of Content-Signal: training of any kind, and
# what covers training where nothing is said of that
TRAINING = ("train-ai", "ai", "train-genai", "genai", "ai-train")
COVERING = ("bots", "all", "tdm")
SIGNAL = re.compile(r"(?<![\w-])ai[-_]?train(?:ing)?\s*[=:]\s*[\"']?(\w+)")


@dataclass(frozen=True)
class Statement:
    """What was said of training: text, as ``train-ai=n``, and whether it refuses."""

    text: str
    refuses: bool


def header_refusal(lines: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(signal, value) of the first header that forbids, or None. lines: (name in lower case,
    value), one for each line of the header section. Lines of Content-Usage are one dictionary
    (RFC 9651, 4.2); the other names forbid by any of their lines."""
    usage = []
    for name, value in lines:
        if name == "content-usage":
            usage.append(value)
        elif found := _refusal(name, value):
            return found
    return _refusal("content-usage", ", ".join(usage)) if usage else None


def page_refusal(metas: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(signal, value) of the first <meta> of a page that forbids its images, or None. metas: (name,
    http-equiv or property, in any case; content). signal: "meta robots" and the like."""
    for names, content in metas:
        for name in names.lower().split(","):
            name = name.strip()
            known = "x-robots-tag" if name in (AGENT, *EVERYBODY) else name.replace("tdm:", "tdm-")
            if found := _refusal(known, content):
                return f"meta {name}", found[1]
    return None


def _refusal(name: str, value: str) -> tuple[str, str] | None:
    """(signal, value) of one header, or None. name: in lower case."""
    if name in ("x-robots-tag", "robots-tag"):
        found = _refusing_tag(value)
        return ("X-Robots-Tag" if name[0] == "x" else "Robots-Tag", found) if found else None
    if name == "tdm-reservation":
        # any other value is unset (TDMRep, 3.1); proxies join lines with a comma
        reserved = "1" in (part.strip() for part in value.split(","))
        return (name, "1") if reserved else None
    if name == "content-usage":
        said = usage_statement(value)
        return ("Content-Usage", said.text) if said and said.refuses else None
    if name == "content-signal":
        said = signal_statement(value)
        return ("Content-Signal", said.text) if said and said.refuses else None
    return None


# ---- tags --------------------------------------------------------------------------------------


def product_token(value: str) -> str:
    """The product token that a value begins with, in lower case, or "": some write a version after
    it (RFC 9309, 2.2.1). ``*`` counts only as the whole word."""
    found = re.match(r"\*(?=\s|$)|[a-zA-Z_-]+", value.strip())
    return found[0].lower() if found else ""


def _refusing_tag(value: str) -> str | None:
    """A directive counts if it stands before any agent's name, or after ours or everybody's."""
    for rules in VALUED_TAG.sub(" ", value.lower()).split(";"):
        agent = "*"
        for part in rules.split(","):
            words = part
            if found := NAMED.match(part):
                name, rest = found[1].strip(), found[2]
                if name in REFUSING_TAGS or name in OTHER_TAGS:  # ``noai:``
                    words = f"{name} {rest}"
                else:
                    agent, words = product_token(name) or name or agent, rest
            if agent not in (AGENT, *EVERYBODY):
                continue
            for word in words.split():
                if (word := word.strip("\"'")) in REFUSING_TAGS:
                    return f"{agent}: {word}" if agent == AGENT else word
    return None


# ---- statements of use -------------------------------------------------------------------------

KEY = r"[a-z*][a-z0-9_.*-]*"
BARE_ITEM = (
    r"(?:-?\d+(?:\.\d+)?|%?\"(?:[^\"\\]|\\.)*\"|:[A-Za-z0-9+/=]*:|\?[01]|@-?\d+"
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*)"
)
PARAMETERS = rf"(?:; *{KEY}(?:={BARE_ITEM})?)*"
ITEM = BARE_ITEM + PARAMETERS
INNER_LIST = rf"\( *(?:{ITEM}(?: +{ITEM})*)? *\)"
MEMBER = re.compile(rf"({KEY})(?:=({INNER_LIST}|{BARE_ITEM}))?{PARAMETERS}[ \t]*")
COMMA = re.compile(r",[ \t]*(?=[^ \t])")
# ``yes`` and ``no`` are Content-Signal's, ``y`` and ``n`` the draft's: what is meant is plain
MEANT = {"y": True, "yes": True, "n": False, "no": False}


def usage_statement(value: str) -> Statement | None:
    """What a value of Content-Usage says of training, or None. It is a dictionary of structured
    fields (RFC 9651, 3.2), of which the last of equal keys counts: ``train-ai=n, search=y``. One
    that is none says nothing by the draft; a no in it is heard all the same."""
    try:
        uses = dict(_members(value.strip(" ")))
    except ValueError:
        uses = dict(_likely_members(value))
    meant = {label: MEANT.get(use.lower()) for label, use in uses.items()}
    training = {label: meant[label] for label in TRAINING if meant.get(label) is not None}
    covering = {label: meant[label] for label in COVERING if meant.get(label) is not None}
    # a yes to all training outweighs a no to what covers it; one to generative training does not
    said = training if {"train-ai", "ai", "ai-train"} & {*training} else training | covering
    refusing = [label for label, allowed in said.items() if not allowed]
    if refusing:
        return Statement(f"{refusing[0]}=n", True)
    return Statement(f"{next(iter(said))}=y", False) if said else None


def _members(value: str) -> Iterator[tuple[str, str]]:
    """Of a dictionary (RFC 9651, 4.2.2) each key and its item as it is written, "" for a key
    alone. Raises ValueError where it is none."""
    at = 0
    while at < len(value):
        found = MEMBER.match(value, at)
        if not found:
            raise ValueError(f"no member of a dictionary at {at}")
        yield found[1], found[2] or ""
        at = found.end()
        if at < len(value):
            if not (comma := COMMA.match(value, at)):
                raise ValueError(f"no comma between members at {at}")
            at = comma.end()


def _likely_members(value: str) -> Iterator[tuple[str, str]]:
    """What the parts of a broken dictionary look like: ``Train-AI = n,``."""
    for part in value.split(","):
        label, _, use = part.partition(";")[0].partition("=")
        yield label.strip().lower(), use.strip(" \t\"'")


def signal_statement(value: str) -> Statement | None:
    """What a value of Content-Signal says of training, or None: ``search=yes, ai-train=no``. Of
    contradicting ones the no counts."""
    said = {MEANT.get(word) for word in SIGNAL.findall(value.lower())}
    if False in said:
        return Statement("ai-train=no", True)
    return Statement("ai-train=yes", False) if True in said else None

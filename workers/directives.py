"""Opt-outs that come with a response or stand in a page: header fields and <meta> elements.

Pure functions, of every kind of worker: lines in, (signal, value) of the first refusal out, or None.

Sources: X-Robots-Tag and meta robots, as search engines document them, with noai and noimageai
(DeviantArt, 2022) and noml; tdm-reservation, TDMRep (W3C Community Group Final Report, 2024-02-02);
Content-Usage, draft-ietf-aipref-attach with the labels of draft-ietf-aipref-vocab.
"""

import re
from collections.abc import Iterable

AGENT = "pairmill"  # our product token, in robots.txt, X-Robots-Tag and meta
MAX_VALUE = 500  # characters of a piece of evidence
REFUSING_TAGS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "noml", "none"))
# directives with a value, whose colon follows no agent's name
AGENT_NAME = re.compile(r"[a-z0-9_-]+")  # and not the rest of a date with a comma in it
VALUED_TAGS = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
# the labels of the vocabulary's revisions -00 to -05 that cover training; later ones may add
CONTENT_USAGE = "Content-Usage"
REFUSING_USES = frozenset(("train-ai", "ai", "genai", "tdm", "bots"))


def header_refusal(lines: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(signal, value) of the first header that forbids, or None. lines: (name in lower case,
    value), one for each line of the header section."""
    for name, value in lines:
        if name == "x-robots-tag" and (found := _tag_refusal(value)):
            return "X-Robots-Tag", found[:MAX_VALUE]
        if name == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation", "1"
        if name == "content-usage" and (found := usage_refusal(value)):
            return CONTENT_USAGE, found[:MAX_VALUE]
    return None


def page_refusal(metas: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """(signal, value) of the first <meta> of a page that forbids its images, or None. metas: (name,
    http-equiv or property, in any case; content). signal: "meta robots" and the like."""
    for name, content in metas:
        name = name.strip().lower()
        found = None
        if name in ("robots", AGENT, "x-robots-tag"):
            found = _tag_refusal(content)
        elif name == "tdm-reservation" and content.strip() == "1":
            found = "1"
        elif name == "content-usage":
            found = usage_refusal(content)
        if found:
            return f"meta {name}", found[:MAX_VALUE]
    return None


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


def usage_refusal(value: str) -> str | None:
    """Content-Usage is a dictionary of structured fields (RFC 9651): ``train-ai=n, search=y``."""
    for part in value.lower().split(","):
        label, _, preference = part.partition(";")[0].partition("=")
        if label.strip() in REFUSING_USES and preference.strip() == "n":
            return f"{label.strip()}=n"
    return None

"""What files and headers say against being collected."""

import pytest

from pairmill.workers.directives import header_refusal
from pairmill.workers.download.optout import (
    AI,
    MAX_FILE_BYTES,
    ROBOTS,
    TDMREP,
    condensed,
    refusal,
)

SITE = "https://a.example"


def robots(text: str, path: str, file: str = ROBOTS) -> str | None:
    return refusal(file, condensed(file, text), SITE + path)


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("", "/x.jpg", None),
        ("User-agent: *\nDisallow: /", "/x.jpg", "disallow: /"),
        ("User-agent: *\nDisallow:", "/x.jpg", None),
        ("User-agent: *\nDisallow: /private", "/private/x.jpg", "disallow: /private"),
        ("User-agent: *\nDisallow: /private", "/public/x.jpg", None),
        # our own group is obeyed instead of everybody's, in any case and with a version
        ("User-agent: *\nDisallow: /\n\nUser-agent: Pairmill\nAllow: /", "/x.jpg", None),
        ("User-agent: *\nAllow: /\n\nUser-agent: PAIRMILL/1.0\nDisallow: /", "/x.jpg", "disallow: /"),
        ("User-agent: pairmillbot\nDisallow: /", "/x.jpg", None),
        ("User-agent: other\nUser-agent: pairmill\nDisallow: /", "/x.jpg", "disallow: /"),
        # groups for one agent are one
        ("User-agent: pairmill\nDisallow: /a\n\nUser-agent: *\nDisallow: /b\n\n"
         "User-agent: pairmill\nDisallow: /c", "/c/x.jpg", "disallow: /c"),
        # the longest match decides, and allow where they are equal
        ("User-agent: *\nDisallow: /img\nAllow: /img/open", "/img/open/x.jpg", None),
        ("User-agent: *\nAllow: /img\nDisallow: /img/closed", "/img/closed/x.jpg", "disallow: /img/closed"),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", None),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/y.jpg", "disallow: /*.jpg$"),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/y.jpg?a", None),
        ("User-agent: *\nDisallow: /*?", "/x.jpg?w=1", "disallow: /*?"),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/caf%c3%a9/x.jpg", "disallow"),
        # what is no robots.txt says nothing
        ("<!doctype html><html><body>Disallow: / is what we would say</body></html>", "/x.jpg", None),
        ("\ufeffUser-agent: *\r\nDisallow: / # all of it\r\n", "/x.jpg", "disallow: /"),
        ("Disallow: /", "/x.jpg", None),  # of no group
        ("\0\0\0User-agent\0: *", "/x.jpg", None),
    ],
)  # fmt: skip
def test_robots(text: str, path: str, rule: str | None) -> None:
    found = robots(text, path)
    assert found == rule or (rule == "disallow" and found is not None)


def test_ai_txt_is_read_as_robots_are() -> None:
    text = "# Spawning AI\nUser-Agent: *\nDisallow: *.jpg\nDisallow: /\nAllow: *.txt"
    assert robots(text, "/x.jpg", AI)
    assert robots("User-Agent: *\nAllow: /", "/x.jpg", AI) is None


@pytest.mark.parametrize(
    ("text", "path", "refused"),
    [
        ('[{"location": "/", "tdm-reservation": 1}]', "/x.jpg", True),
        ('[{"location": "/", "tdm-reservation": 0}]', "/x.jpg", False),
        ('[{"location": "/open/*", "tdm-reservation": 0}, {"location": "/*", "tdm-reservation": 1}]', "/open/x.jpg", False),
        ('[{"location": "/open/*", "tdm-reservation": 0}, {"location": "/*", "tdm-reservation": 1}]', "/x.jpg", True),
        ('[{"location": "*.png", "tdm-reservation": 1}]', "/x.jpg", False),
        ('{"location": "/", "tdm-reservation": 1}', "/x.jpg", True),
        ("<html>not found</html>", "/x.jpg", False),
        ('\ufeff[{"location": "/", "tdm-reservation": 1}]', "/x.jpg", True),
        ('[{"location": "/~ann/*", "tdm-reservation": 1}]', "/%7Eann/x.jpg", True),
        ('[{"location": "/caf%c3%a9/", "tdm-reservation": 1}]', "/caf%C3%A9/x.jpg", True),
        ('[1, null, {"location": 3}, {"tdm-reservation": 1}]', "/x.jpg", False),
        ("[" * 100_000, "/x.jpg", False),
    ],
)  # fmt: skip
def test_tdmrep(text: str, path: str, refused: bool) -> None:
    rule = refusal(TDMREP, condensed(TDMREP, text), SITE + path)
    assert (rule is not None) == refused


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], None),
        ([("x-robots-tag", "noai")], ("X-Robots-Tag", "noai")),
        ([("x-robots-tag", "index, NOIMAGEAI")], ("X-Robots-Tag", "noimageai")),
        ([("x-robots-tag", "all"), ("x-robots-tag", "noindex")], ("X-Robots-Tag", "noindex")),
        ([("x-robots-tag", "none")], ("X-Robots-Tag", "none")),
        ([("x-robots-tag", "nofollow, noarchive")], None),
        ([("x-robots-tag", "otherbot: noindex")], None),
        ([("x-robots-tag", "otherbot: noindex, noai")], None),
        ([("x-robots-tag", "pairmill: noml")], ("X-Robots-Tag", "pairmill: noml")),
        ([("x-robots-tag", "otherbot: noai, pairmill: noimageindex")], ("X-Robots-Tag", "pairmill: noimageindex")),
        ([("x-robots-tag", "unavailable_after: Wed, 25 Jun 2030 15:00:00 GMT, noai")], ("X-Robots-Tag", "noai")),
        ([("x-robots-tag", "unavailable_after: 25 Jun 2010 15:00:00 PST, noai")], ("X-Robots-Tag", "noai")),
        ([("tdm-reservation", "1")], ("tdm-reservation", "1")),
        ([("tdm-reservation", "0")], None),
        ([("content-usage", "train-ai=n")], ("Content-Usage", "train-ai=n")),
        ([("content-usage", "search=y, train-ai=n;x=1")], ("Content-Usage", "train-ai=n")),
        ([("content-usage", "train-ai=y, search=n")], None),
        ([("content-usage", "garbage ;;= ,,")], None),
    ],
)  # fmt: skip
def test_headers(lines: list[tuple[str, str]], found: tuple[str, str] | None) -> None:
    assert header_refusal(lines) == found


def test_evidence_is_short_and_a_huge_file_is_read() -> None:
    long = "/" + "x" * 2000
    assert len(robots(f"User-agent: *\nDisallow: {long}", long) or "") == 500
    rules = "\n".join(f"Disallow: /{i}/*" for i in range(4000))
    much = rules + "\n" + "# and much more\n" * 30_000
    assert len(much) > MAX_FILE_BYTES
    assert robots(f"User-agent: *\n{much}", "/7/x.jpg") == "disallow: /7/*"
    assert robots(f"User-agent: *\n{much}", "/none/x.jpg") is None
    # more than are worth matching forbid everything
    assert robots(f"User-agent: *\n{rules}\n{rules}", "/none/x.jpg") == "more than 5,000 rules"


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("User-agent: *\nContent-Usage: train-ai=n", "/x.jpg", "content-usage: / train-ai=n"),
        ("User-agent: *\nContent-Usage: /img train-ai=n\nAllow: /", "/img/x.jpg",
         "content-usage: /img train-ai=n"),
        ("User-agent: *\nContent-Usage: /img train-ai=n\nAllow: /", "/x.jpg", None),
        ("User-agent: *\nContent-Usage: train-ai=y\nAllow: /", "/x.jpg", None),
        ("User-agent: a\nContent-Usage: train-ai=n\n\nUser-agent: *\nAllow: /", "/x.jpg", None),
    ],
)  # fmt: skip
def test_content_usage_in_robots(text: str, path: str, rule: str | None) -> None:
    assert robots(text, path) == rule


def test_many_wildcards_are_matched_in_bounded_steps() -> None:
    """As a regular expression this would take longer than the universe has."""
    hostile = "/" + "*a" * 5000 + "b"
    path = "/" + "a" * 9000
    assert robots(f"User-agent: *\nDisallow: {hostile}", path) is None
    assert refusal(TDMREP, f'[["{hostile}", 1]]', SITE + path) is None


@pytest.mark.parametrize("rules", ["x", "[1]", "{}", "[" * 100_000])
def test_rules_that_another_worker_made_up_break_nothing(rules: str) -> None:
    assert refusal(TDMREP, rules, SITE + "/x.jpg") is None
    assert refusal(ROBOTS, rules, SITE + "/x.jpg") is None

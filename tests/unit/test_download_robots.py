"""robots.txt as its authors write it, and paths as they mean them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.workers.download.optout import (
    AI,
    MAX_FILE_BYTES,
    ROBOTS,
    TDMREP,
    condensed,
    refusal,
    text_of,
)

SITE = "https://a.example"
EVERYBODY = "User-agent: *\n"


def refused(text: str | bytes, path: str, file: str = ROBOTS) -> str | None:
    """The rule that forbids a path, of a file as it came."""
    body = text if isinstance(text, bytes) else text.encode()
    return refusal(file, condensed(file, text_of(file, body)), SITE + path)


@pytest.mark.parametrize(
    "text",
    [
        # google/robotstxt takes these for what they mean
        "Useragent: *\nDisalow: /",
        "User agent: *\nDissallow: /",
        "User-agent *\nDisallow /",
        "user-agent\t*\ndisallow\t/",
        "USER-AGENT : *\nDISSALOW : /",
        "User-agents: *\nDiasllow: /",
        "User-agent: *\nDisallaw:/",
        "User-agent: *\nDisallowed: /",
        "User-agent: * # all\nDisallow: / # of it",
        "User-agent: * and all others\nDisallow: /",
        "   User-agent: *\n\t Disallow: /",
        "User-agent: *\rDisallow: /\r",
        "User-agent: *\r\n\r\n\r\nDisallow: /\r\n",
        "User-agent: *\nSitemap: https://a.example/s.xml\nCrawl-delay: 9\nDisallow: /",
        # RFC 9309, 2.2.4: lines of other names end no group
        "User-agent: *\nSitemap: https://a.example/s.xml\nUser-agent: b\nDisallow: /",
        "User-agent: b\nInvented: x\nUser-agent: *\nDisallow: /",
        # rules under the names of several groups, ours among them
        "User-agent: *\nAllow: /\nUser-agent: a\nUser-agent: PAIRMILL/2\nDisallow: /",
        "User-agent: *\nDisallow:\n\nUser-agent: *\nDisallow: /",
        # a mark of the byte order, whole, in part, and before the second of two files
        b"\xef\xbb\xbfUser-agent: *\nDisallow: /",
        b"\xef\xbbUser-agent: *\nDisallow: /",
        "User-agent: a\nDisallow: /x\n\ufeffUser-agent: *\nDisallow: /",
        "User-agent: *\nDisallow: /".encode("utf-16"),
        b"\xfe\xff" + "User-agent: *\nDisallow: /".encode("utf-16-be"),
        "User-agent: *\nDisallow: /".encode("utf-16-le"),
        b"User-agent: *\nDisallow: \0/\0",
        "User-agent: *\nDisallow: *",
        "User-agent: *\nDisallow: img/",  # its slash was left out
    ],
)
def test_misspelt_files_close_what_they_mean(text: str | bytes) -> None:
    assert refused(text, "/img/x.jpg")


@pytest.mark.parametrize(
    "text",
    [
        "User-agent: *WordPress*\nDisallow: /",
        "User-agent: *bot\nDisallow: /",
        "User-agent: pairmillbot\nDisallow: /",
        "User-agent: pair\nDisallow: /",
        "User-agent: mill\nDisallow: /",
        "User-agent: Mozilla pairmill\nDisallow: /",
        "User-agent:\nDisallow: /",
        "User-agent: *\nDisallow: /\nUser-agent: pairmill",  # ours is there, and empty
        "User-agent: *\nDisallow\n/",
        "User-agent: *\nWe disallow: /",
        "User-agent: *\nDisallow all of / to all",
        "User-agent: *\n# Disallow: /",
        "User-agent: *\nDisallow:\n",
        "User-agent: *\nNoindex: /",
        "User-agent: *\n\x0bDis\u2028allow: /",
        "User-agent: *\nDisallow: https://other.example/",  # another host's
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 9,
        b"<html>User-agent: *<br>Disallow: /</html>",
        b"",
        b"\n" * 100_000,
    ],
)
def test_what_is_not_meant_for_us_closes_nothing(text: str | bytes) -> None:
    assert refused(text, "/img/x.jpg") is None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        # RFC 9309, 2.2.2, and its table
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz", True),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar", True),
        ("/foo/bar?baz=https%3a%2f%2Ffoo.bar", "/foo/bar?baz=https://foo.bar", True),
        ("/foo/bar/ツ", "/foo/bar/%E3%83%84", True),
        ("/foo/bar/%E3%83%84", "/foo/bar/ツ", True),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz", True),
        ("/foo/bar/baz", "/foo/%62ar/ba%7a", True),
        ("/Foo", "/foo", False),
        # 2.2.3, and TDMRep's example
        ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),
        ("/path/file-with-a-%2a.html", "/path/file-with-a-%2A.html", True),
        ("/path/file-with-a-%2A.html", "/path/file-with-a-b.html", False),
        ("/path/foo-%24", "/path/foo-$", True),
        ("/path/foo-%24", "/path/foo-%24", True),
        ("/path/foo-%24", "/path/foo-", False),
        ("/path/foo-$", "/path/foo-", True),
        ("/path/foo-$", "/path/foo-$", False),
        ("/a$b", "/a$b", True),
        ("/a$b", "/a%24b/c", True),
        # a slash or a question mark that is encoded divides nothing
        ("/a%2Fb", "/a%2fb", True),
        ("/a%2Fb", "/a/b", False),
        ("/a/b", "/a%2Fb", False),
        ("/a%3Fb", "/a?b", False),
        ("/a?b", "/a%3Fb", False),
        ("/a%23b", "/a%23b", True),
        # characters of no meaning, encoded or not
        ("/~ann/", "/%7Eann/", True),
        ("/a%28b%29", "/a(b)", True),
        ("/a b/", "/a%20b/", True),
        ("/100%/", "/100%25/", True),
        ("/a|b", "/a%7cb", True),
        ("/%", "/%2541", True),
        ("/%zz", "/%25zz", True),
        # wildcards
        ("*.jpg$", "/x/y.jpg", True),
        ("*.jpg$", "/x/y.jpg?w=1", False),
        ("/*/b", "/a/b", True),
        ("/*/b", "/?u=/b", True),
        ("*%2Fb", "/?u=%2Fb", True),
        ("/a**b", "/aXb", True),
        ("/a*", "/a", True),
        ("/a*$", "/abc", True),
        ("/ab*ab$", "/ab", False),
        ("/*?", "/x?", True),
        ("/*?", "/x", False),
        ("$", "/x", False),
    ],
)
@pytest.mark.parametrize("file", [ROBOTS, TDMREP])
def test_paths_are_compared_in_one_form(file: str, pattern: str, path: str, matches: bool) -> None:
    robots = f"User-agent: *\nDisallow: {pattern}"
    tdmrep = json.dumps([{"location": pattern, "tdm-reservation": 1}])
    assert bool(refused(robots if file == ROBOTS else tdmrep, path, file)) == matches


def test_octets_that_are_no_utf_8_are_matched_and_can_be_stored() -> None:
    rules = condensed(ROBOTS, text_of(ROBOTS, b"User-agent: *\nDisallow: /caf\xe9/"))
    assert rules.encode() == b"disallow: /caf%E9/"
    assert refusal(ROBOTS, rules, f"{SITE}/caf%e9/x.jpg") == "disallow: /caf%E9/"


@pytest.mark.parametrize(
    ("rules", "path", "rule"),
    [
        # the most octets decide, and Allow between equals
        ("Disallow: /\nAllow: /img", "/img/x.jpg", None),
        ("Allow: /img\nDisallow: /img/a*", "/img/ab", "disallow: /img/a*"),
        ("Allow: /page\nDisallow: /*.htm", "/page.htm", "disallow: /*.htm"),
        ("Disallow: /a\nAllow: /*", "/a", None),
        ("Disallow: /caf%C3%A9\nAllow: /*.jpg", "/café/x.jpg", "disallow: /caf%C3%A9"),
        ("Disallow: /\nAllow: /$", "/", None),
        ("Disallow: /\nAllow: /$", "/x", "disallow: /"),
        ("Disallow: /b\nDisallow: /\nDisallow: /a/b\nDisallow: /a", "/a/b/c", "disallow: /a/b"),
    ],
)
def test_the_longest_rule_decides_and_is_the_evidence(
    rules: str, path: str, rule: str | None
) -> None:
    assert refused(EVERYBODY + rules, path) == rule


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        # what Cloudflare's managed robots.txt says
        ("User-agent: *\nContent-Signal: search=yes,ai-train=no,use=reference\nAllow: /\n\n"
         "User-agent: GPTBot\nDisallow: /", "/x.jpg", "content-signal: ai-train=no"),
        ("User-agent: *\nAllow: /\nCONTENT-SIGNAL : AI-Train = NO", "/x.jpg",
         "content-signal: ai-train=no"),
        ("User-agent: *\nContent-signal: search=yes\nContent-signal: ai-train=no", "/x.jpg",
         "content-signal: ai-train=no"),
        ("User-agent: *\nContent-Signal: ai-train=no\nContent-Signal: ai-train=yes", "/x.jpg",
         "content-signal: ai-train=no"),
        ("User-agent: *\nContent-Signal ai-train=no", "/x.jpg", "content-signal: ai-train=no"),
        ("Content-Signal: ai-train=no\nUser-agent: *\nAllow: /", "/x.jpg",
         "content-signal: ai-train=no"),
        ("Content-Signal: ai-train=no", "/x.jpg", "content-signal: ai-train=no"),
        ("User-agent: *\nContent-Signal: /img/ ai-train=no\nAllow: /", "/img/x.jpg",
         "content-signal: /img/ ai-train=no"),
        ("User-agent: *\nContent-Signal: /img/\tai-train=no\nAllow: /", "/x.jpg", None),
        ("User-agent: *\nContent-Signal: ai-train=no\nContent-Signal: /open/ ai-train=yes",
         "/open/x.jpg", None),
        ("User-agent: *\nContent-Signal: ai-train=no\nContent-Signal: /open/ search=yes",
         "/open/x.jpg", "content-signal: ai-train=no"),
        ("User-agent: *\nContent-Signal: search=no, ai-input=no\nAllow: /", "/x.jpg", None),
        ("User-agent: *\nContent-Signal: ai-train=yes\nAllow: /", "/x.jpg", None),
        ("User-agent: *\n# Content-Signal: ai-train=no\nAllow: /", "/x.jpg", None),
        # of another's group, and of everybody's where we have our own
        ("User-agent: a\nContent-Signal: ai-train=no\n\nUser-agent: *\nAllow: /", "/x.jpg", None),
        ("User-agent: *\nContent-Signal: ai-train=no\n\nUser-agent: pairmill\nAllow: /", "/x.jpg",
         None),
        ("Content-Signal: ai-train=no\nUser-agent: pairmill\nAllow: /", "/x.jpg", None),
        # it is a rule, so the next agent's line begins a group
        ("User-agent: *\nContent-Signal: ai-train=yes\n\nUser-agent: a\nDisallow: /", "/x.jpg", None),
    ],
)  # fmt: skip
def test_content_signal_in_robots(text: str, path: str, rule: str | None) -> None:
    assert refused(text, path) == rule


@pytest.mark.parametrize(
    ("usages", "path", "rule"),
    [
        # the path ends at the first blank or tab
        (["/img/ train-ai=n, search=y"], "/img/x", "content-usage: /img/ train-ai=n"),
        (["/img/\ttrain-ai=n,\tsearch=y"], "/img/x", "content-usage: /img/ train-ai=n"),
        (["/img/   train-ai=n"], "/img/x", "content-usage: /img/ train-ai=n"),
        (["/img/ search=y, train-ai=n"], "/x", None),
        (["/img=1 train-ai=n"], "/img=1", "content-usage: /img=1 train-ai=n"),
        (["*.jpg train-ai=n"], "/x.jpg", "content-usage: *.jpg train-ai=n"),
        (["/img/"], "/img/x", None),
        # the longest path decides, whatever the order
        (["train-ai=n", "/ok/ train-ai=y"], "/ok/x", None),
        (["/ok/ train-ai=y", "train-ai=n"], "/ok/x", None),
        (["/ok/ train-ai=y", "train-ai=n"], "/x", "content-usage: / train-ai=n"),
        (["/ok/ train-ai=y", "/ok/no/ train-ai=n"], "/ok/no/x", "content-usage: /ok/no/ train-ai=n"),
        (["/caf%c3%a9/ train-ai=n", "/caf train-ai=y"], "/café/x",
         "content-usage: /caf%c3%a9/ train-ai=n"),
        (["/%6Fk/ train-ai=y", "/ok train-ai=n"], "/ok/x", None),
        # of equal ones the no (draft-ietf-aipref-attach, 4.1); within one the last
        (["train-ai=n", "train-ai=y"], "/x", "content-usage: / train-ai=n"),
        (["train-ai=n, train-ai=y"], "/x", None),
        # a longer path that says nothing of training leaves it to the shorter
        (["train-ai=n", "/img search=y"], "/img/x", "content-usage: / train-ai=n"),
    ],
)  # fmt: skip
def test_content_usage_in_robots(usages: list[str], path: str, rule: str | None) -> None:
    lines = "".join(f"Content-Usage: {usage}\n" for usage in usages)
    assert refused(f"{EVERYBODY}Allow: /\n{lines}", path) == rule


def test_disallow_stands_beside_statements() -> None:
    text = "User-agent: *\nContent-Usage: train-ai=y\nContent-Signal: ai-train=yes\nDisallow: /no/"
    assert refused(text, "/no/x.jpg") == "disallow: /no/"
    assert refused(text, "/x.jpg") is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rule_that_the_limit_cuts_is_left_out(end: str) -> None:
    """``Disallow: /private`` would close the host as ``Disallow: /``."""
    head, rule = f"User-agent: *{end}Disallow: /a{end}", "Disallow: /"
    padding = "#" * (MAX_FILE_BYTES - len(head) - len(rule) - len(end)) + end
    cut = (head + padding + rule + "private").encode()
    assert cut[:MAX_FILE_BYTES].endswith(b"Disallow: /")
    assert refused(cut, "/x.jpg") is None
    assert refused(cut, "/a") == "disallow: /a"
    # a file that is no longer has no cut line, and one that was cut at its end has all of it
    whole = (head + padding + rule).encode()
    assert len(whole) == MAX_FILE_BYTES
    assert refused(whole, "/x.jpg") == "disallow: /"
    assert refused(whole + end.encode() + b"Disallow: /x", "/x.jpg") == "disallow: /"
    assert refused(b"Disallow: /" * 100_000, "/x.jpg") is None  # one line


def test_ai_txt_has_the_same_rules_and_the_same_limit() -> None:
    assert refused("User-Agent: *\nContent-Signal: ai-train=no", "/x.jpg", AI)
    assert refused("Useragent: *\nDisalow: *.jpg", "/x.jpg", AI) == "disallow: *.jpg"
    assert refused(b"User-agent: *\nDisallow: /" + b"x" * MAX_FILE_BYTES, "/y", AI) is None


@pytest.mark.parametrize(
    ("text", "path", "location"),
    [
        # the first that matches decides
        ([("/open/*", 0), ("/*", 1)], "/open/x.jpg", None),
        ([("/*", 1), ("/open/*", 0)], "/open/x.jpg", "/*"),
        ([("/directory-b/images/*.jpg", 0)], "/directory-b/images/x.jpg", None),
        ([("/", "1")], "/x.jpg", "/"),
        ([("/", " 1 ")], "/x.jpg", "/"),
        ([("/", True)], "/x.jpg", "/"),
        # other values are unset, and leave it to the next
        ([("/", "yes")], "/x.jpg", None),
        ([("/", 2), ("/", 1)], "/x.jpg", "/"),
        ([("/", None), ("/", 1)], "/x.jpg", "/"),
        ([("/", [1])], "/x.jpg", None),
        # what stands before a fault was said
        ('[{"location": "/", "tdm-reservation": 1},]', "/x.jpg", "/"),
        ('[{"location": "/", "tdm-reservation": 1}, {"location": "/b', "/x.jpg", "/"),
        ('  [ 1, null, {"location": "/a", "tdm-reservation": 1}', "/a", "/a"),
        ('[{"location": "/", "tdm-reservation": 1, "tdm-policy": "https://a.example/"}]', "/", "/"),
        (
            '{"location": "/", "tdm-reservation": 1}',
            "/x.jpg",
            "/",
        ),  # the brackets are mandatory; what is meant is plain
        ("[" * 100_000, "/x.jpg", None),
        ('[{"location": "/\\ud800\\u0000", "tdm-reservation": 1}]', "/x.jpg", None),
    ],
)
def test_tdmrep(text: str | list[tuple[str, object]], path: str, location: str | None) -> None:
    if isinstance(text, list):
        text = json.dumps([{"location": where, "tdm-reservation": said} for where, said in text])
    rule = f"tdm-reservation 1 for {location}" if location else None
    assert refused(text, path, TDMREP) == rule


def test_tdmrep_that_the_limit_cuts_says_what_it_says_before() -> None:
    padding = " " * MAX_FILE_BYTES
    text = f'[{{"location": "/", "tdm-reservation": 1}},{padding}{{"location": "/open"}}]'
    assert refused(text, "/x.jpg", TDMREP) == "tdm-reservation 1 for /"
    many = json.dumps([{"location": f"/{n}", "tdm-reservation": 1} for n in range(5001)])
    assert refused(many, "/none", TDMREP) == "more than 5,000 rules"


def test_evidence_can_be_stored_whatever_was_escaped() -> None:
    rules = condensed(TDMREP, '[{"location": "/\\ud800*", "tdm-reservation": 1}]')
    rule = refusal(TDMREP, rules, f"{SITE}/%ED%A0%80x")
    assert (rule or "").encode() == b"tdm-reservation 1 for /?*"


@pytest.mark.parametrize(
    "rules",
    [
        "invented: /\nanother",
        "invented: /\ndisallow: /no",
        "content-signal",
        "content-usage: ",
        "allow: \ndisallow: ",
    ],
)
def test_rules_of_another_versions_worker_are_harmless(rules: str) -> None:
    assert refusal(ROBOTS, rules, f"{SITE}/x.jpg") is None
    assert bool(refusal(ROBOTS, rules, f"{SITE}/no")) == ("disallow: /no" in rules)


LINES = st.sampled_from(
    ["User-agent: *", "Useragent pairmill", "Disallow: /", "Disalow /%", "Allow: *$", "\ufeff#", ":",
     "Content-Usage: /\t(;=\"", "Content-Signal: ai-train=", "[{\"location\": \"/\\ud800\"", "\0", "\r"]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=20), max_size=12), st.binary(max_size=40), st.text())
def test_any_file_is_read_and_can_be_stored(lines: list[str], octets: bytes, path: str) -> None:
    """Bad input costs no host and no batch: nothing raises, and PostgreSQL takes the rules."""
    body = "\n".join(lines).encode("utf-8", "replace") + octets
    for file in (ROBOTS, TDMREP, AI):
        rules = condensed(file, text_of(file, body))
        assert "\0" not in rules
        rules.encode()
        (refusal(file, rules, f"{SITE}/{path}") or "").encode()


def test_a_group_for_very_many_agents_is_kept_once() -> None:
    """9,000 agents with 18,000 rules, 400 KB, were 160 million rules: a minute, and gigabytes."""
    agents = "".join(f"User-agent: a{n}\n" for n in range(9_000))
    rules = "Disallow: /\n" * 18_000
    assert refused(f"{agents}{rules}{EVERYBODY}Disallow: /x", "/y") is None
    assert refused(f"{agents}User-agent: *\nUser-agent: *\nDisallow: /x", "/x")


def test_rule_that_is_longer_than_a_line_of_googles_stays_whole() -> None:
    """Google's parser drops what follows 16,663 octets, and the pattern is wider then."""
    long = "/" + "x" * 20_000
    assert refused(f"{EVERYBODY}Disallow: {long}y", long) is None
    assert refused(f"{EVERYBODY}Disallow: {long}y", f"{long}y")

"""What headers and <meta> elements say against being collected."""

import pytest

from pairmill.workers.directives import (
    header_refusal,
    page_refusal,
    product_token,
    signal_statement,
    usage_statement,
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("noai: ", "noai"),  # a colon too many is no agent's name
        ("noimageai:", "noimageai"),
        ("index: , noai", "noai"),
        ("nofollow: noai", "noai"),
        ("*: noai", "noai"),
        ("robots: noai", "noai"),
        ("Pairmill/1.0: NoAI", "pairmill: noai"),
        ("noindex nofollow", "noindex"),  # blanks and semicolons for commas
        ("nofollow;noai", "noai"),
        ('"noai, noimageai"', "noai"),
        ("otherbot: noindex; noai", "noai"),
        ("otherbot: all, pairmill: noai, thirdbot: all", "pairmill: noai"),
        ("otherbot/2.1: noai", None),
        ("my other bot: noindex", None),
        ("360spider: noindex, noai", None),
        ("pairmillbot: noai", None),
        # a value of another directive is no directive, nor is a date an agent's name
        ("max-image-preview:none", None),
        ("max-image-preview: none, max-snippet:-1", None),
        ("index max-image-preview:none noai", "noai"),
        ("max-snippet: -1, noai", "noai"),
        ("unavailable_after: Wed, 25 Jun 2030 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: Wednesday, 25-Jun-30 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: June 25, 2030 15:00:00, noai", "noai"),
        ("unavailable_after: 2030-06-25T15:00:00+00:00, noai", "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", None),
        # the shape of noai is not enough
        ("noairbnb, noindexing, xnoai", None),
        (":,", None),
        (":, :, ,;: -:: ", None),
    ],
)
def test_tags_are_told_from_agents_and_from_values(value: str, found: str | None) -> None:
    assert header_refusal([("x-robots-tag", value)]) == (("X-Robots-Tag", found) if found else None)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        # draft-illyes-repext: agents by "="; what follows a semicolon is everybody's
        ([("robots-tag", "*=noindex, nosnippet; ExampleBot=;")], ("Robots-Tag", "noindex")),
        ([("robots-tag", "nosnippet; ExampleBot=noindex")], None),
        ([("tdm-reservation", " 1 ")], ("tdm-reservation", "1")),
        ([("tdm-reservation", "1, 1")], ("tdm-reservation", "1")),  # lines that a proxy joined
        # TDMRep, 3.1: any other value is unset
        ([("tdm-reservation", "11")], None),
        ([("tdm-reservation", "yes")], None),
        ([("tdm-policy", "https://a.example/policy")], None),
        ([("content-signal", "ai-train=yes, search=yes, ai-input=yes")], None),
        ([("content-signal", "search=yes,ai-train=no")], ("Content-Signal", "ai-train=no")),
        # one dictionary over all lines (RFC 9651, 4.2): the last of equal keys counts
        ([("content-usage", "train-ai=n"), ("content-usage", "train-ai=y")], None),
        ([("content-usage", "train-ai=y"), ("content-usage", "train-ai=n")],
         ("Content-Usage", "train-ai=n")),
        ([("content-usage", "train-ai=y"), ("x-robots-tag", "noai")], ("X-Robots-Tag", "noai")),
    ],
)  # fmt: skip
def test_headers_of_every_kind(lines: list[tuple[str, str]], found: tuple[str, str] | None) -> None:
    assert header_refusal(lines) == found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("train-ai=n", "train-ai=n"),
        ("search=y,\ttrain-ai=n", "train-ai=n"),
        ("train-ai=n, train-ai=y", "train-ai=y"),
        ("train-ai=y, train-ai=n", "train-ai=n"),
        ("train-ai=n;why=\"a, b=c\";x, search=y", "train-ai=n"),
        ("train-ai;allow=n, train-ai=y", "train-ai=y"),  # the draft's example of parameters
        # of its own examples: values that are no tokens say nothing
        ("train-ai=y, train-ai, search=n, search=\"n\"", None),
        ("train-ai=?0", None),
        ("train-ai=\"n\"", None),
        ("train-ai=(n)", None),
        ("train-ai=n, train-ai=:AAA=:, x=@1, y=%\"z\", z=1.5", None),
        ("note=\"train-ai=n\"", None),
        ("train-ai=maybe", None),
        ("search=n", None),
        ("", None),
        # not by the letter, and plain all the same
        ("Train-AI=N", "train-ai=n"),
        ("train-ai = n", "train-ai=n"),
        ("train-ai=n,", "train-ai=n"),
        ("train-ai=no", "train-ai=n"),
        ("garbage ;;= ,,", None),
        # older revisions' labels; the more special one counts
        ("ai=n", "ai=n"),
        ("genai=n, train-ai=y", "genai=n"),
        ("bots=n", "bots=n"),
        ("bots=n, train-ai=y", "train-ai=y"),
        ("bots=n, train-genai=y", "bots=n"),
        ("tdm=y", "tdm=y"),
    ],
)  # fmt: skip
def test_content_usage_is_a_structured_dictionary(value: str, said: str | None) -> None:
    found = usage_statement(value)
    assert (found.text if found else None) == said
    assert found is None or found.refuses == said.endswith("n")  # type: ignore[union-attr]


def test_hostile_tags_are_read_in_bounded_steps() -> None:
    """60 KB of ``max-max-…`` held a worker up for 25 seconds at each image."""
    assert header_refusal([("x-robots-tag", "max-" * 15_000 + ", noai")]) is not None
    assert header_refusal([("x-robots-tag", "max-a" + " " * 60_000 + "none")]) is not None


def test_hostile_dictionary_is_read_in_bounded_steps() -> None:
    """Nested repetition in a regular expression would take longer than the universe has."""
    for part in ("a", "a ", '"a" ', "a;b=c ", "1 "):
        assert usage_statement("x=(" + part * 20_000) is None


@pytest.mark.parametrize(
    ("value", "refuses"),
    [
        ("search=yes, ai-train=no", True),
        ("SEARCH=YES,AI-TRAIN=NO,use=reference", True),
        ("search=yes ai-train = no", True),
        ("ai-train=yes, ai-train=no", True),
        ("ai-train=n", True),
        ("ai-train=yes", False),
        ("search=no, ai-input=no", None),  # neither is training
        ("not-ai-train=no", None),
        ("ai-train=nobody", None),
        ("", None),
    ],
)
def test_content_signal(value: str, refuses: bool | None) -> None:
    found = signal_statement(value)
    assert (found.refuses if found else None) == refuses


@pytest.mark.parametrize(
    ("metas", "found"),
    [
        ([], None),
        ([("robots", "index, follow"), ("description", "noai")], None),
        ([("ROBOTS", "NoAI, NoImageAI")], ("meta robots", "noai")),
        ([("robots", "noimageai")], ("meta robots", "noimageai")),
        ([("robots", "noindex,nofollow")], ("meta robots", "noindex")),
        ([("robots", "NONE")], ("meta robots", "none")),
        ([("robots", "max-image-preview:none, index")], None),
        ([("googlebot", "noindex")], None),  # another's
        ([("Pairmill", "noml")], ("meta pairmill", "noml")),
        ([("googlebot, robots", "noimageindex")], ("meta robots", "noimageindex")),
        ([("X-Robots-Tag", "noai")], ("meta x-robots-tag", "noai")),
        ([("tdm-reservation", " 1\n")], ("meta tdm-reservation", "1")),
        ([("tdm:reservation", "1")], ("meta tdm:reservation", "1")),
        ([("tdm-reservation", "0"), ("tdm-policy", "1")], None),
        ([("Content-Usage", "train-ai=n")], ("meta content-usage", "train-ai=n")),
        ([("content-signal", "ai-train=no")], ("meta content-signal", "ai-train=no")),
        ([(" robots ", "all"), ("robots", "noai")], ("meta robots", "noai")),
    ],
)
def test_page(metas: list[tuple[str, str]], found: tuple[str, str] | None) -> None:
    assert page_refusal(metas) == found


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("*", "*"),
        ("* # everybody", "*"),
        ("*WordPress*", ""),
        ("*/1.0", ""),
        ("Pairmill/1.0 (+https://a.example)", "pairmill"),
        ("pairmill2", "pairmill"),  # digits are of no product token
        ("pairmill-bot", "pairmill-bot"),
        ("", ""),
    ],
)
def test_product_token_is_matched_whole(value: str, token: str) -> None:
    assert product_token(value) == token

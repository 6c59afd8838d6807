"""All templates, style sheets and scripts of the pages: what the Content-Security-Policy would
refuse, what would let outside text be markup, and what a reader by ear would miss."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pairmill.ops.web.render import environment

WEB = Path(__file__).parents[2] / "ops" / "web"
TEMPLATES = sorted((WEB / "templates").rglob("*.html"))
SCRIPTS = sorted((WEB / "static").glob("*.js"))
STYLES = sorted((WEB / "static").glob("*.css"))
SOURCES = sorted(WEB.rglob("*.py"))
JINJA = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
VOID_LABELS = {"hidden", "submit", "button", "image"}


def named(path: Path) -> str:
    return path.relative_to(WEB).as_posix()


class Tags(HTMLParser):
    """The tags of a template whose expressions are an x each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.labelled: set[str | None] = set()
        self._labels = 0
        self.within_label: list[dict[str, str | None]] = []
        self.feed(JINJA.sub(lambda found: "x" if found[0].startswith("{{") else " ", text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append((tag, held))
        if tag == "label":
            self._labels += 1
            self.labelled.add(held.get("for"))
        elif self._labels:
            self.within_label.append(held)

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._labels -= 1


@pytest.fixture(scope="module", params=TEMPLATES, ids=named)
def template(request: pytest.FixtureRequest) -> str:
    found: Path = request.param
    return found.read_text("utf-8")


def test_templates_are_found_and_compile() -> None:
    assert len(TEMPLATES) > 10
    for path in TEMPLATES:
        environment().get_template(path.relative_to(WEB / "templates").as_posix())


def test_nothing_is_inline(template: str) -> None:
    """Would catch: a style or a script that the browser then refuses, and a page without it."""
    for tag, held in Tags(template).tags:
        assert tag not in {"style", "iframe", "object", "embed", "base"}, tag
        assert "style" not in held, tag
        assert not [name for name in held if name.startswith("on")], tag
        assert tag != "script" or held.get("src"), "a script within the page"
        for name in ("src", "href", "action"):
            value = held.get(name) or ""
            assert not value.lower().startswith(("javascript:", "data:")), value
        if tag in {"script", "link", "img"}:  # no other host is asked for anything
            assert not (held.get("src") or held.get("href") or "").startswith(("http", "//"))


def test_nothing_of_outside_is_markup(template: str) -> None:
    """Would catch: a name or a URL that becomes HTML."""
    code = " ".join(JINJA.findall(template))
    assert not re.search(r"\|\s*safe\b|Markup\(|autoescape\s+false", code)


@pytest.mark.parametrize("path", TEMPLATES, ids=named)
def test_each_page_has_the_frame(path: Path) -> None:
    """Would catch: a page without a skip link, a language or a viewport."""
    text = path.read_text("utf-8")
    if path.name == "base.html":
        assert '<html lang="en">' in text
        assert 'href="#main"' in text
        assert 'name="viewport"' in text
    elif not re.search(r"^\{% extends", text, re.MULTILINE):
        # parts for other templates hold macros alone
        outside = re.sub(r"\{%-?\s*macro.*?endmacro\s*-?%\}", "", text, flags=re.DOTALL)
        assert not JINJA.sub("", outside).strip(), "a page that extends no frame"


def test_each_form_says_how_and_where(template: str) -> None:
    """Would catch: a form that sends a secret in a URL, or posts to wherever it stands."""
    for tag, held in Tags(template).tags:
        if tag == "form":
            assert (held.get("method") or "").lower() in {"get", "post"}, held
            assert held.get("action") or held["method"] == "get", held
        if tag == "button":
            assert held.get("type", "submit") in {"submit", "button"}, held


def test_each_input_has_a_label(template: str) -> None:
    """Would catch: a field whose purpose only the eye sees."""
    found = Tags(template)
    for tag, held in found.tags:
        kind = (held.get("type") or "text").lower()
        if tag in {"select", "textarea"} or (tag == "input" and kind not in VOID_LABELS):
            known = held.get("aria-label") or held.get("aria-labelledby")
            assert known or held in found.within_label or held.get("id") in found.labelled, held


def test_each_image_and_table_is_named(template: str) -> None:
    """Would catch: a picture without an alternative, a table without a caption or headings."""
    found = Tags(template)
    kinds = [tag for tag, _ in found.tags]
    for tag, held in found.tags:
        assert tag != "img" or "alt" in held
        assert tag != "th" or "scope" in held
        assert int(held.get("tabindex") or 0) <= 0
        if held.get("target") == "_blank":
            assert "noopener" in (held.get("rel") or "")
    assert kinds.count("table") <= kinds.count("caption")


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_make_no_markup_and_no_code_of_text(path: Path) -> None:
    """Would catch: a name that a script writes into the page as HTML (DOM XSS)."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)
    banned = (
        r"\beval\b|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\.style\b"
        r"|createContextualFragment|setTimeout\(\s*[\"']|https?://|import\s*\(|postMessage|srcdoc"
        r"|DOMParser|javascript:"
    )
    assert not re.search(banned, text)


@pytest.mark.parametrize("path", STYLES, ids=named)
def test_style_sheets_ask_no_other_host(path: Path) -> None:
    """Would catch: a font or an image of another host, which then knows each visitor."""
    text = path.read_text("utf-8")
    assert not re.search(r"@import|https?:|url\(", text)
    # what is seen with a keyboard stays seen
    assert not re.search(
        r"outline\s*:\s*(?:none|0)", text.replace("main:focus { outline: none; }", "")
    )


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_code_marks_no_text_of_outside_as_markup(path: Path) -> None:
    """Would catch: Markup(text) or an f-string of it: only literals are markup."""
    text = path.read_text("utf-8")
    for found in re.finditer(r"Markup\(\s*(.)", text):
        assert found[1] in "\"')", text[found.start() : found.start() + 60]
    assert "|safe" not in text

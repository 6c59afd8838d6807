"""A real browser: chromium, which reaches loopback alone, and whose complaints are failures."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 60_000  # a busy machine is no reason to fail
PHONE, DESK = {"width": 320, "height": 640}, {"width": 1280, "height": 800}
SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    # no name is looked up, of whichever page or service of the browser's own
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
# every rule, best practices too, and WCAG 2.2's size of targets, which is off by default
AXE = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
COLOURS = {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]}
WHOLE = (("phone", "light"), ("desk", "dark"))
HERE = {"127.0.0.1", ""}  # "": data: and about:

# rows of a table are alike, and axe takes 30 s for 400 of them
FIRST_ROWS = """() => { for (const body of document.querySelectorAll('tbody'))
  [...body.rows].slice(12).forEach(row => row.remove()) }"""
# everything that Tab has to reach; and what it did reach, and whether that was seen
FOCUSABLE = """() => { window.focused = {}; addEventListener('focusin', ({target: e}) => {
  const s = getComputedStyle(e);
  window.focused[e.dataset.tabbed] ||= e.matches(':focus-visible') &&
    ((s.outlineStyle != 'none' && parseFloat(s.outlineWidth) >= 2) || s.boxShadow != 'none') });
  return [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]')].filter(e =>
    e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true})).map((e, n) => {
      e.dataset.tabbed = n; return e.outerHTML.slice(0, 120) }) }"""


class Visit:
    """A page of a browser. troubles: what it and the browser complained of, which ``browse`` asserts
    is nothing."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        self._refusals: set[int] = set()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        # what a status says is for _response
        if message.type in ("error", "warning") and "responded with a status" not in message.text:
            self.troubles.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if (urlsplit(request.url).hostname or "") not in HERE:
            self.troubles.append(f"asks beyond this machine: {request.url}")

    def _failed(self, request: Request) -> None:
        # of a page that is left meanwhile, what it was still asking for is given up
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"failed: {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        navigation = response.request.is_navigation_request()
        if response.status >= 400 and not (navigation and response.status in self._refusals):
            self.troubles.append(f"{response.status}: {response.url}")

    def to(self, url: str, status: int = 200) -> Page:
        """Go to a page, which answers with this status."""
        self._refusals.add(status)
        answer = self.page.goto(url)
        assert answer is not None
        assert answer.status == status, f"{answer.status} of {url}"
        self._refusals.clear()
        return self.page

    @contextmanager
    def refused(self, status: int) -> Iterator[None]:
        """In the block a form may be answered with this status."""
        self._refusals.add(status)
        yield
        self._refusals.clear()

    def heading(self) -> str:
        return self.page.locator("h1").inner_text()

    def main(self) -> str:
        return self.page.locator("main").inner_text()

    def violations(self) -> list[str]:
        """What axe-core finds on the page, in light and dark, on a phone and on a desk; and whether
        it has to be scrolled sideways on a phone."""
        found: list[str] = []
        self.page.evaluate(FIRST_ROWS)
        self.page.evaluate(Axe().axe_script)
        for name, size in (("phone", PHONE), ("desk", DESK)):
            self.page.set_viewport_size(size)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            if wide > size["width"]:
                found.append(f"{name}: {wide} pixels wide")
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                # all rules once for each size and scheme; of the other two pairs the colours
                rules = AXE if (name, scheme) in WHOLE else COLOURS
                results = self.page.evaluate(f"axe.run({json.dumps(rules)})")
                found += [f"{name}, {scheme}: {each}" for each in _said(results)]
        return found

    def unreached(self) -> list[str]:
        """What Tab does not reach from the top of the page, or shows no focus on."""
        self.page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
        expected: Sequence[str] = self.page.evaluate(FOCUSABLE)
        for more in (len(expected), 20):  # a date or a file field takes more than one
            for _ in range(more):
                self.page.keyboard.press("Tab")
            seen: dict[str, bool] = self.page.evaluate("window.focused")
            if len(seen) == len(expected):
                break
        return [
            f"{'no focus is seen on' if str(n) in seen else 'not reached:'} {each}"
            for n, each in enumerate(expected)
            if not seen.get(str(n))
        ]


def _said(results: dict[str, Any]) -> list[str]:
    return [
        f"{rule['id']} ({rule['help']}): {node['html'][:200]}"
        for rule in results["violations"]
        for node in rule["nodes"]
    ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browse(browser: Browser, *, scripts: bool = True, **options: Any) -> Iterator[Visit]:
    """A visitor without cookies. Afterwards nothing was complained of. scripts: whether JavaScript
    runs; options: of playwright's context."""
    given: dict[str, Any] = {"viewport": DESK, "reduced_motion": "reduce"} | options
    context = browser.new_context(java_script_enabled=scripts, **given)
    try:
        visit = Visit(context.new_page())
        yield visit
        assert visit.troubles == []
    finally:
        context.close()


@contextmanager
def inside(
    browser: Browser, cookies: dict[str, Any], who: str = "admin", *, scripts: bool = True
) -> Iterator[Visit]:
    """A visitor who has logged in to the admin's page. cookies: of an admin and a viewer."""
    with browse(browser, scripts=scripts, storage_state=cookies[who]) as visit:
        yield visit

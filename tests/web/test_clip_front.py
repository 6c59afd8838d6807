"""clip-retrieval's own front, the built files of its package, over our service."""

import importlib.util
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route

from support.browser import browse
from support.served_demo import MODEL, ServedDemo

# its package lacks a file that its page names, and its library warns of itself
OWN_FAULTS = ("webcomponents-loader.js", "module entrypoint is deprecated")


@pytest.fixture(scope="module")
def front() -> Path:
    found = importlib.util.find_spec("clip_retrieval")
    assert found, "make installs clip-retrieval"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]).parent / "front" / "build"


def test_a_search_in_clip_retrievals_front_shows_images_and_leads_to_another(
    demo: ServedDemo, browser: Browser, front: Path
) -> None:
    """Would catch: a policy that blocks the front, a field that it does not find, an address of the
    service that it does not reach, answers that it shows as nothing."""
    knn = ("--index", f"demo={demo.index}", "--release", str(demo.release), *MODEL)
    options = ("--allow-unsafe", "--front", str(front), "--front-images")
    url = demo.serve("knn", *knn, *options)

    def image(route: Route) -> None:
        route.fulfill(body=demo.image(route.request.url))

    with browse(browser) as visit:
        visit.page.route("http://*.example/**", image)
        page = visit.to(url)
        page.get_by_role("combobox").first.wait_for()
        for label in ("Safe mode", "Remove violence"):  # the demo's release has no tags of either
            page.locator("label, div, span").filter(has_text=label).last.locator("input").uncheck()
        page.locator("#searchBar").fill("a red circle")
        with page.expect_response("**/knn-service") as told:
            page.keyboard.press("Enter")
        rows = told.value.json()
        shown = page.locator("img.pic")
        first = shown.first
        first.wait_for()
        assert first.get_attribute("title") == rows[0]["caption"]
        assert first.evaluate("image => image.naturalWidth") > 0
        assert shown.count() > 10
        page.locator("figure").first.hover()
        with page.expect_response("**/knn-service") as told:  # like the first one's text
            page.locator("figure").first.locator(".subTextSearch").click()
        assert told.value.request.post_data_json["text"] == rows[0]["caption"]
        assert told.value.json()[0]["caption"]
        visit.troubles[:] = [
            each
            for each in visit.troubles
            if not any(fault in each for fault in OWN_FAULTS)
            and not (each.startswith("asks beyond") and ".example/" in each)
        ]

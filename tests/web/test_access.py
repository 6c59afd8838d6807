"""Every page for everybody: axe-core, the keyboard, a narrow screen, light and dark."""

import pytest
from playwright.sync_api import Browser

from support.browser import browse
from support.served_demo import ServedDemo

PUBLIC = (
    ("live", "/"),
    ("live", "/leaderboard"),
    ("live", "/crawls"),
    ("live", "/join"),
    ("knn", "/"),
    ("admin", "/login"),
)


@pytest.mark.parametrize(("site", "path"), PUBLIC)
def test_a_public_page_is_for_everybody(
    demo: ServedDemo, browser: Browser, site: str, path: str
) -> None:
    """Would catch: a colour of too little contrast, a field without a label, a link that no key
    reaches, a table that pushes a phone's page sideways."""
    with browse(browser) as visit:
        visit.to(demo.urls[site] + path)
        assert visit.violations() == []
        assert visit.unreached() == []

"""Fixtures: one browser, and the demo's pages as processes, for all tests of this folder."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.browser import CHROMIUM, browse, chromium
from support.database import new_database, say_migrated
from support.served_demo import ServedDemo, served_demo


@pytest.fixture(scope="session")
def demo(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDemo]:
    with new_database(server) as database:
        say_migrated(database.admin)
        with served_demo(database, tmp_path_factory.mktemp("demo")) as made:
            yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def cookies(demo: ServedDemo, browser: Browser) -> dict[str, Any]:
    """What browsers of an admin and of a viewer keep after their log-in."""
    kept = {}
    for who, options in (("admin", ()), ("viewer", ("--viewer",))):
        with browse(browser) as visit:
            visit.to(demo.login(*options))
            visit.page.get_by_role("button", name="Log in").click()
            visit.page.wait_for_url(demo.urls["admin"] + "/")
            kept[who] = visit.page.context.storage_state()
    return kept

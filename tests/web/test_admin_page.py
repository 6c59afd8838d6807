"""The admin's page in a browser: who comes in, and what somebody is asked before it is done."""

from typing import Any

import pytest
from playwright.sync_api import Browser

from pairmill.ops.web.console.console_app import NAV
from support.browser import browse, inside
from support.database import Database, outcomes
from support.line import wait_until
from support.served_demo import ServedDemo

IDLE = "idle"
HOSTILE = "</td><script>alert(1)</script>"


@pytest.fixture(scope="module", autouse=True)
def troubled(demo: ServedDemo) -> Database:
    """Tasks that were given up and parked, with a reason of somebody's."""
    database = demo.database
    queue, _ = database.queue("extract", IDLE)
    for place in ("lost.wat.gz", "parked.wat.gz"):
        database.add_wat(place)
        claim = database.claim("extract", IDLE)
        assert claim
        queue.fail(claim.lease_id, f"{HOSTILE} {place}", retry=place == "parked.wat.gz")
    demo.line.pairmill("task", "park", str(claim.task_id))
    return database


@pytest.mark.parametrize("scripts", [True, False])
def test_a_link_lets_one_browser_in_and_only_once(
    demo: ServedDemo, browser: Browser, scripts: bool
) -> None:
    """Would catch: a cookie that a browser does not keep, or that scripts read; a link that works
    when it is opened by a mail program, or twice."""
    link = demo.login("--name", "Grace")
    with browse(browser, scripts=scripts) as visit:
        visit.to(link)
        assert visit.heading() == "Log in"
        assert visit.page.context.cookies() == []
        visit.page.get_by_role("button", name="Log in").click()
        visit.page.wait_for_url(demo.urls["admin"] + "/")
        assert "Grace" in visit.page.locator("header").inner_text()
        (cookie,) = visit.page.context.cookies()
        assert cookie["name"].startswith("__Host-")
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        visit.page.get_by_role("button", name="Log out").click()
        visit.page.wait_for_url(demo.urls["admin"] + "/login")
        visit.to(demo.urls["admin"] + "/", 401)
    with browse(browser, scripts=scripts) as another:
        another.to(link)
        with another.refused(403):
            another.page.get_by_role("button", name="Log in").click()
            another.page.locator(".notice.bad").wait_for()
        assert another.page.context.cookies() == []


@pytest.mark.parametrize(
    "path",
    [href for href, _ in NAV] + ["/worker?name=idle", "/act/worker.disable?name=idle", "/nothing"],
)
def test_a_page_of_the_admins_is_for_everybody(
    demo: ServedDemo, browser: Browser, cookies: dict[str, Any], path: str
) -> None:
    """Would catch: a colour of too little contrast, a field without a label, a link that no key
    reaches, a table that pushes a phone's page sideways; text of outside as markup."""
    with inside(browser, cookies) as visit:
        visit.to(demo.urls["admin"] + path, 404 if path == "/nothing" else 200)
        assert visit.violations() == []
        assert visit.unreached() == []
        if path == "/failures":
            assert HOSTILE in visit.main()


def test_a_viewer_sees_no_button_that_changes_something(
    demo: ServedDemo, browser: Browser, cookies: dict[str, Any]
) -> None:
    """Would catch: an action offered to, or done by, somebody who may only look."""
    with inside(browser, cookies, "viewer") as visit:
        for path, _ in NAV:
            visit.to(demo.urls["admin"] + path)
            assert visit.page.locator("form[action^='/act/']").count() == 0, path
        visit.to(demo.urls["admin"] + "/act/worker.disable?name=idle", 403)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_worker_is_quarantined_after_its_numbers_were_seen(
    demo: ServedDemo, browser: Browser, cookies: dict[str, Any], scripts: bool
) -> None:
    """Would catch: a quarantine without a question, with other numbers than it was confirmed with,
    or without an entry in the log; a form that needs a script."""
    name = f"suspect {scripts} {HOSTILE}"
    database = demo.database
    urls = demo.batch(f"suspect{scripts}")
    queue, _ = database.queue("download", name)
    claim = database.claim("download", name)
    assert claim
    queue.submit_download(claim.lease_id, 0, outcomes([n for n, _ in queue.urls(claim.lease_id)]))
    queue.complete(claim.lease_id)
    database.accept_all()
    with inside(browser, cookies, scripts=scripts) as visit:
        page = visit.to(demo.urls["admin"] + "/workers")
        page.get_by_role("link", name=name).click()
        assert visit.heading() == name
        page.get_by_role("button", name="Quarantine").click()
        page.get_by_role("heading", name="Quarantine a worker").wait_for()
        assert f"{len(urls)} " in visit.main()
        assert visit.violations() == [] if scripts else True
        page.get_by_label("Reason").fill("it sent the same image for each URL")
        page.get_by_role("button", name="Quarantine a worker").click()
        page.get_by_role("heading", name="Done").wait_for()
        page.get_by_role("link", name="In the audit log").click()
        row = page.locator("tr", has_text="worker.quarantine").first
        assert name in row.inner_text()
    wait_until(
        lambda: database.value(
            "select disabled_at is not null from mill.worker where name = %s", name
        ),
        "the worker to be disabled",
    )
    again = "select count(*) from mill.task where kind = 'download' and state = 'ready'"
    assert database.value(f"{again} and batch_id = %s", claim.payload["batch_id"]) == 1

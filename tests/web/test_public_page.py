"""The public page in a browser: it renews itself, and a volunteer joins by what it says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser

from pairmill.ops.admin import logins
from pairmill.workers.download import consent
from support.browser import browse
from support.line import PATIENCE, wait_until
from support.served_demo import CONTACT, ServedDemo

NAME = "Ada <b>of</b> London"
VOLUNTEER_PAGE = Path(__file__).parents[2] / "docs" / "volunteer.md"


def numbers(demo: ServedDemo) -> dict[str, Any]:
    with urlopen(f"{demo.urls['live']}/live.json", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def run_as_shown(demo: ServedDemo, command: str, state: Path, more: str = "2>&1") -> str:
    """Run a command as a volunteer types it, in a shell; returns what it said."""
    done = subprocess.run(
        f"{command} {more}", shell=True, env=of_a_volunteer(demo, state), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_a_volunteer(demo: ServedDemo, state: Path) -> dict[str, str]:
    """An environment with nothing of the admin's: no DATABASE_URL, no PAIRMILL_HOME."""
    kept = {
        k: v for k, v in demo.line.environment.items() if k not in ("DATABASE_URL", "PAIRMILL_HOME")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PAIRMILL_AGREE": "yes", "XDG_STATE_HOME": str(state)}


@contextmanager
def working(demo: ServedDemo, command: str, state: Path) -> Iterator[None]:
    """A command at work as a volunteer types it, until they stop it. Not --drain: checks of other
    tests' URLs wait for a worker in another network, and it would wait for them."""
    worker = subprocess.Popen(
        command, shell=True, env=of_a_volunteer(demo, state), start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(PATIENCE)


@contextmanager
def accepting(demo: ServedDemo) -> Iterator[None]:
    """A steward at work."""
    steward = demo.line.start("steward")
    yield
    steward.terminate()
    steward.communicate(timeout=PATIENCE)


def test_a_volunteer_joins_by_the_page_alone(
    demo: ServedDemo, browser: Browser, tmp_path: Path
) -> None:
    """Would catch: a command on /join that does not run, a page that is not renewed without a
    reload or asks while nobody looks, a name that is shown unasked or as markup."""
    dsn = logins.add_worker(demo.database.admin, NAME, "download")
    demo.line.pairmill("worker", "prove", NAME)  # or others would be asked to check its URLs
    urls = demo.batch("volunteer")
    with browse(browser) as watching, browse(browser) as joining:
        watching.page.clock.install()
        page = watching.to(demo.urls["live"] + "/")
        page.evaluate("window.sameDocument = true")
        fetched = page.locator('[data-live="totals.fetched"]')
        before = numbers(demo)["totals"]["fetched"]

        joining.to(demo.urls["live"] + "/join")
        install, work = joining.page.locator("pre.command").all_inner_texts()
        assert work == (
            f"PAIRMILL_WORKER_DSN='postgresql://pm_…' PAIRMILL_CONTACT='{CONTACT}' pairmill work download"
        )
        assert install in VOLUNTEER_PAGE.read_text()
        shown = joining.page.locator("blockquote").inner_text()
        assert shown.split() == consent.text().split()

        named = work.replace("postgresql://pm_…", dsn)
        worker_me = named.replace("work download", "worker show-name yes")
        run_as_shown(demo, worker_me, tmp_path)
        me = named.replace("work download", "worker me --json")

        def accepted_of_it() -> int:
            return int(json.loads(run_as_shown(demo, me, tmp_path, "2>/dev/null"))["rows_accepted"])

        with accepting(demo), working(demo, named, tmp_path):
            wait_until(lambda: accepted_of_it() >= len(urls), "the acceptance of its downloads")
        accepted = accepted_of_it()

        done = demo.database.value("select clock_timestamp()")
        wait_until(lambda: datetime.fromisoformat(numbers(demo)["at"]) > done, "the numbers")
        wanted = numbers(demo)["totals"]["fetched"]
        assert wanted >= before + len(urls)
        page.clock.run_for(10_000)
        page.wait_for_function(
            "([place, text]) => place.textContent == text",
            arg=[fetched.element_handle(), f"{wanted:,}"],
        )
        assert page.evaluate("window.sameDocument")

        joining.to(demo.urls["live"] + "/leaderboard")
        row = joining.page.locator("tr", has_text=NAME)
        assert row.locator("td, th").all_inner_texts()[1:3] == [NAME, f"{accepted:,}"]
        joining.to(f"{demo.urls['live']}/worker/{NAME.replace('/', '%2F')}")
        assert joining.heading() == NAME
        assert joining.violations() == []


@pytest.mark.parametrize("path", ["/", "/leaderboard", "/crawls", "/join"])
def test_the_public_page_needs_no_script(demo: ServedDemo, browser: Browser, path: str) -> None:
    """Would catch: numbers that only a script fills in, a page that is never renewed without it."""
    with browse(browser, scripts=False) as visit:
        page = visit.to(demo.urls["live"] + path)
        text = visit.main()
        assert page.locator('meta[http-equiv="refresh"]').get_attribute("content") == "30"
        assert "As of" in text
        if path == "/":
            shown = page.locator('[data-live="totals.pairs"]').inner_text()
            assert int(shown.replace(",", "")) > 0

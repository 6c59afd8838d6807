"""Make docs/screens/*.webp, the pictures of the pages, light and dark.

    make demo SERVE_PAGES=1                # in one terminal; it prints a link
    .venv/bin/python docs/make_screens.py --login 'http://127.0.0.1:8804/login?token=…'

The link works once. It takes Debian's chromium, and the extra `dev`.
"""

import io
import sys
from pathlib import Path

import typer
from PIL import Image
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.browser import DESK, browse, chromium

OUT = Path(__file__).with_name("screens")
MOST = 60_000  # bytes of a picture


def main(
    login: str = typer.Option(..., help="As `pairmill web login` prints it; of the admin's page."),
    live: str = "http://127.0.0.1:8801",
    explore: str = "http://127.0.0.1:8802",
    knn: str = "http://127.0.0.1:8803",
    text: str = typer.Option("a red circle", help="What is searched for by meaning."),
) -> None:
    """Look at each page in both schemes, and write what is seen."""
    OUT.mkdir(exist_ok=True)
    with chromium() as browser, browse(browser, viewport=DESK) as visit:
        page = visit.to(f"{live}/")
        _write(page, "live")
        page = visit.to(f"{explore}/")
        page.locator(".card h2 a").last.click()
        page.locator("tbody th a").first.wait_for()
        _write(page, "explore")
        page = visit.to(f"{knn}/")
        page.locator("#f-text").fill(text)
        if page.locator("#unsafe-t").count():  # rows of the demo have no tag
            page.locator("#unsafe-t").check()
        page.get_by_role("button", name="Search", exact=True).click()
        page.locator("#results").wait_for()
        _write(page, "knn")
        page = visit.to(login)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Overview").wait_for()
        _write(page, "admin")


def _write(page: Page, name: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        shot = page.screenshot()
        for quality in (80, 60, 40):
            out = io.BytesIO()
            with Image.open(io.BytesIO(shot)) as image:
                image.save(out, "WEBP", quality=quality, method=6)
            if out.tell() <= MOST:
                break
        (OUT / f"{name}-{scheme}.webp").write_bytes(out.getvalue())


if __name__ == "__main__":
    typer.run(main)

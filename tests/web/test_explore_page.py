"""The page of releases in a browser: a search, "is mine in it?", and a removal to its end."""

import io
from functools import cache
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Browser

from pairmill.workers.download.pdq import pdq
from support.browser import browse, inside
from support.served_demo import ServedDemo

SCRIPTS = pytest.mark.parametrize("scripts", [True, False])


@cache
def rows(demo: ServedDemo) -> list[dict[str, Any]]:
    """The release's, by SAMPLE_ID."""
    return sorted(pq.read_table(demo.release).to_pylist(), key=lambda row: row["SAMPLE_ID"])


def path_of(demo: ServedDemo, page: str) -> str:
    first = rows(demo)[0]
    return page.format(
        id=first["SAMPLE_ID"], url=quote(first["URL"], safe=""), text=quote(first["TEXT"])
    )


PAGES = (
    ("/", 200), ("/r/demo", 200), ("/r/demo?host=nobody.example&min_width=3", 200),
    ("/r/demo/{id}", 200), ("/r/demo/{id}/evidence", 200), ("/search?text={text}", 200),
    ("/mine?url={url}", 200), ("/mine?host=demo.example&below=1", 200), ("/evidence?url={url}", 200),
    ("/remove?url={url}", 200), ("/nothing", 404),
)  # fmt: skip


@pytest.mark.parametrize(("page", "status"), PAGES)
def test_a_page_of_releases_is_for_everybody(
    demo: ServedDemo, browser: Browser, page: str, status: int
) -> None:
    """Would catch: a colour of too little contrast, a field without a label, a link that no key
    reaches, a table that pushes a phone's page sideways."""
    with browse(browser) as visit:
        visit.to(demo.urls["explore"] + path_of(demo, page), status)
        assert visit.violations() == []
        assert visit.unreached() == []


@SCRIPTS
def test_a_search_leads_to_a_row_and_says_what_to_loosen(
    demo: ServedDemo, browser: Browser, scripts: bool
) -> None:
    """Would catch: a form that filters nothing, or forgets what was asked; a dead end where nothing
    is found; a link to a row that is another row's."""
    word = max(rows(demo)[0]["TEXT"].split(), key=len)
    having = [row for row in rows(demo) if word.lower() in row["TEXT"].lower().split()]
    with browse(browser, scripts=scripts) as visit:
        page = visit.to(demo.urls["explore"] + "/")
        page.get_by_role("link", name="demo", exact=True).click()
        page.get_by_label("Text has the words").fill(word)
        page.get_by_role("button", name="Show").click()
        page.get_by_role("heading", name=f"{len(having)} row").wait_for()
        assert page.get_by_label("Text has the words").input_value() == word
        shown = page.locator("tbody").first.locator("th").all_inner_texts()
        assert sorted(map(int, shown)) == [row["SAMPLE_ID"] for row in having]

        page.get_by_label("Host, and those below it").fill("nobody.example")
        page.get_by_role("button", name="Show").click()
        page.get_by_text("No row has all of this").wait_for()
        page.get_by_role("link", name="nobody.example").click()
        page.get_by_role("heading", name=f"{len(having)} row").wait_for()

        page.get_by_role("link", name=str(having[0]["SAMPLE_ID"]), exact=True).click()
        page.get_by_role("heading", name=f"Sample {having[0]['SAMPLE_ID']}").wait_for()
        link = page.get_by_role("link", name=having[0]["URL"], exact=True)
        assert set((link.get_attribute("rel") or "").split()) >= {"noreferrer", "nofollow"}
        assert page.locator("img").count() == 0


@SCRIPTS
def test_a_search_by_meaning_shows_what_is_unsafe_only_where_asked(
    demo: ServedDemo, browser: Browser, scripts: bool
) -> None:
    """Would catch: a search that reaches no service, or answers with another order; rows without a
    tag, as the demo's are, that pass for safe ones."""
    best = max(rows(demo), key=lambda row: row["similarity"])
    with browse(browser, scripts=scripts) as visit:
        page = visit.to(demo.urls["explore"] + "/search")
        page.get_by_label("What is to be seen").fill(best["TEXT"])
        page.get_by_role("button", name="Search", exact=True).click()
        page.get_by_role("heading", name="Nearest to").wait_for()
        assert "known to be safe is near to it" in visit.main()
        page.locator("#f-unsafe").check()
        page.get_by_role("button", name="Search", exact=True).click()
        page.get_by_role("link", name=str(best["SAMPLE_ID"]), exact=True).wait_for()

        page = visit.to(demo.urls["knn"] + "/")
        page.locator("#f-text").fill(best["TEXT"])
        page.locator("#unsafe-t").check()
        page.get_by_role("button", name="Search", exact=True).click()
        page.locator("#results").wait_for()
        assert f"SAMPLE_ID {best['SAMPLE_ID']} " in visit.main()
        page.locator("#f-image").set_input_files(upload(demo.image(best["URL"])))
        page.locator("#unsafe-i").check()
        page.get_by_role("button", name="Search by image").click()
        page.locator("#results").wait_for()
        assert f"SAMPLE_ID {best['SAMPLE_ID']} " in page.locator(".results li").first.inner_text()


def upload(body: bytes) -> Any:
    return {"name": "<b>mine</b>.jpg", "mimeType": "image/jpeg", "buffer": body}


def again(image: bytes) -> bytes:
    """The same picture in another file, half its size."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        opened.convert("RGB").reduce(2).save(out, "JPEG", quality=70)
    return out.getvalue()


def keeps_its_hash(image: bytes) -> bool:
    """Whether a picture has a PDQ, as flat drawings have not, which another size keeps."""
    with Image.open(io.BytesIO(image)) as whole, Image.open(io.BytesIO(again(image))) as small:
        found = [int.from_bytes(pdq(each.convert("RGB"))) for each in (whole, small)]
    return all(found) and (found[0] ^ found[1]).bit_count() <= 20


@SCRIPTS
def test_whoever_asks_is_told_whether_theirs_is_in_it(
    demo: ServedDemo, browser: Browser, scripts: bool
) -> None:
    """Would catch: a copy that passes for the same file, a picture that is not recognised in
    another size, and a spelling of the address that is."""
    row = next(row for row in rows(demo) if keeps_its_hash(demo.image(row["URL"])))
    image = demo.image(row["URL"])
    with browse(browser, scripts=scripts) as visit:
        page = visit.to(demo.urls["explore"] + "/mine")
        page.get_by_label("Address of the picture").fill(
            row["URL"].replace("http://", "HTTP://") + "#x"
        )
        page.get_by_role("button", name="Look for the address").click()
        page.get_by_role("heading", name="Yes: it is in a release").wait_for()
        assert str(row["SAMPLE_ID"]) in visit.main()
        for body, answer in ((image, "Yes: this very file"), (again(image), "Probably")):
            page.locator("#f-image").set_input_files(upload(body))
            page.get_by_role("button", name="Look for the picture").click()
            page.get_by_role("heading", name=answer).wait_for()
            assert str(row["SAMPLE_ID"]) in visit.main()


@SCRIPTS
def test_what_somebody_asks_to_remove_is_in_no_later_release(
    demo: ServedDemo, browser: Browser, cookies: dict[str, Any], scripts: bool
) -> None:
    """Would catch: a step of this way that only a script or only a command can take; an approval
    that reaches no release; an answer that nobody is told."""
    row, reason = rows(demo)[-1 if scripts else -2], "</textarea><script>alert(1)</script> it is me"
    with browse(browser, scripts=scripts) as asking:
        address = f"{demo.urls['explore']}/r/demo/{row['SAMPLE_ID']}"
        page = asking.to(address)
        page.get_by_role("link", name="Ask for its removal").click()
        assert page.locator("#f-urls").input_value() == row["URL"]
        page.get_by_label("Reason (required)").fill(reason)
        page.get_by_label("How to answer you").fill("me@home.example")
        page.get_by_role("button", name="Send the request").click()
        page.get_by_role("heading", name="Request ").wait_for()
        assert "waiting for an admin" in asking.main()
        number = asking.heading().split()[-1]

        with inside(browser, cookies, scripts=scripts) as admin:
            admin.to(f"{demo.urls['admin']}/requests")
            admin.page.get_by_role("link", name=number, exact=True).click()
            admin.page.get_by_role("heading", name=f"Request {number}").wait_for()
            assert reason in admin.main()
            assert admin.violations() == [] if scripts else True
            admin.page.get_by_role("button", name="Approve").click()
            admin.page.get_by_role("heading", name="Approve a request").wait_for()
            assert "They name 1 known pair" in admin.main()
            admin.page.get_by_label("Why").fill("we took it out, and are sorry")
            admin.page.get_by_role("button", name="Approve a request").click()
            admin.page.get_by_role("heading", name="Done").wait_for()

        asking.page.reload()
        assert "approved" in asking.main()
        assert "we took it out, and are sorry" in asking.main()
        assert asking.violations() == [] if scripts else True
        asking.to(address, 410)  # the release that is served does not show it either
    after = demo.releases / f"after-{number}"
    demo.line.pairmill(
        "release", "update", str(demo.release), "--out", str(after), "--covers", "0", "--urgent"
    )
    assert row["SAMPLE_ID"] not in pq.read_table(after)["SAMPLE_ID"].to_pylist()

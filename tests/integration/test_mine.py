"""Is mine in it? What is answered by URL, host and picture, and what is not told."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.web.explore import evidence, mine
from pairmill.ops.web.explore.knn_client import KnnClient
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from support.database import Database, key, outcomes_of
from support.explore import exploring, page_login
from support.image_parts import encoded
from support.made_releases import made_release, rows_of
from support.removals import URLS
from support.template import Template

PHOTO = encoded(photo_like(5, (400, 300)))
SMALLER = encoded(photo_like(5, (400, 300)).resize((320, 240)), quality=70)
OTHER = encoded(photo_like(6, (400, 300)))
HOSTILE = 'http://x.example/"><script>alert(1)</script>'
UNKNOWN = "http://nobody.example/1.jpg"


@contextmanager
def neighbours(found: list[dict[str, Any]], status: int = 200) -> Iterator[str]:
    """A kNN service that finds these."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert asked["deduplicate"] is asked["use_safety_model"] is False
            body = json.dumps(found if status == 200 else {"error": "too busy"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def line(template: Template) -> Iterator[Database]:
    """Pair 1 has PHOTO's picture in another size; the last two failed and opted out."""
    with template.copy() as database:
        database.add_model()
        database.extract(URLS, pages=["http://p.example/"] * len(URLS))
        database.close_batches()
        claim = database.claim("download")
        assert claim
        queue, _ = database.queue("download")
        positions = [n for n, _ in queue.urls(claim.lease_id)]
        images: list[bytes | Outcome] = [hashlib.sha256(b"%d" % n).digest() for n in positions]
        failed = database.value("select n from mill.pair where url = %s", URLS[-1])
        images[positions.index(failed)] = Outcome.HTTP_ERROR
        queue.submit_download(claim.lease_id, 0, outcomes_of(positions, images))
        queue.complete(claim.lease_id)
        database.accept_all()
        like = decode(SMALLER)
        database.admin.execute(
            "update mill.download d set dhash = %s, pdq = %s from mill.pair p"
            " where p.batch_id = d.batch_id and p.n = d.n and p.url = %s",
            (like.dhash, like.pdq, URLS[1]),
        )
        yield database


def ids(line: Database) -> dict[str, int]:
    return dict(line.rows("select url, mill.sample_id(batch_id, n) from mill.pair"))


@pytest.fixture(scope="module")
def folder(line: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of all but the last pair; the first one's file is PHOTO."""
    known = sorted((number, url) for url, number in ids(line).items() if url != URLS[-1])
    md5s = [hashlib.md5(PHOTO if url == URLS[0] else url.encode()).hexdigest() for _, url in known]
    table = rows_of([number for number, _ in known], md5=md5s)
    urls = pa.array([url for _, url in known])
    table = table.set_column(table.schema.get_field_index("URL"), "URL", urls)
    return made_release(tmp_path_factory.mktemp("releases") / "ours", table)


@pytest.fixture(scope="module")
def browser(line: Database, folder: Path) -> Iterator[httpx.Client]:
    with exploring([mine.routes, evidence.routes], page_login(line), folder) as client:
        yield client


def told(browser: httpx.Client, **asked: str) -> dict[str, Any]:
    answer = browser.get("/mine", params=asked | {"format": "json"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("spelling", ["{}", "HTTP{0[4:]}", "{}#part", "h:80", "dots"])
def test_a_url_is_found_in_every_spelling(
    line: Database, browser: httpx.Client, spelling: str
) -> None:
    """A person copies an address from a browser, and the page had another spelling."""
    url = URLS[1]
    host = url.split("/")[2]
    asked = {
        "{}": url, "HTTP{0[4:]}": "HTTP" + url[4:], "{}#part": url + "#part",
        "h:80": url.replace(host, f"{host}:80"), "dots": url.replace(host + "/", host + "/a/../"),
    }[spelling]  # fmt: skip
    found = told(browser, url=asked)
    assert [row["sample_id"] for row in found["rows"]] == [ids(line)[url]]
    assert [known["state"] for known in found["known"]] == ["downloaded"]


def test_what_no_release_took_is_known_with_its_state(browser: httpx.Client) -> None:
    found = told(browser, url=URLS[-1])
    assert found["rows"] == []
    assert [(k["state"], k["outcome"]) for k in found["known"]] == [("failed", "http_error")]
    assert "could not be downloaded" in browser.get("/mine", params={"url": URLS[-1]}).text
    assert told(browser, url=UNKNOWN)["known"] == []


def test_a_removed_url_is_answered_as_one_that_never_was(
    line: Database, browser: httpx.Client
) -> None:
    """Whoever has a list's address could ask whether it is on it; and the release still has it."""
    removal.add(line.admin, [URLS[2], "nobody.example"], "a list", False)
    try:
        answers = [told(browser, url=url) for url in (URLS[2], UNKNOWN)]
        assert [(a["rows"], a["known"]) for a in answers] == [([], [])] * 2
        pages = [browser.get("/mine", params={"url": url}).text for url in (URLS[2], UNKNOWN)]
        assert pages[0].replace(URLS[2], UNKNOWN).count(UNKNOWN) == pages[1].count(UNKNOWN)
        assert all("No release here has it" in page for page in pages)
        assert browser.get("/evidence", params={"url": URLS[2]}).status_code == 404
        row = ids(line)[URLS[2]]
        assert browser.get(f"/r/ours/{row}/evidence").status_code == 410
    finally:
        entries = removal.named_by(line.admin, [URLS[2], "nobody.example"])
        removal.undo(line.admin, entries, "", False)


def test_a_hosts_rows_are_counted_and_its_neighbours_are_not(browser: httpx.Client) -> None:
    found = told(browser, host=URLS[1].split("/")[2].upper())
    assert found["counts"][0][0] == "ours"
    assert URLS[1] in [row["url"] for row in found["rows"]]
    assert told(browser, host="1.example")["counts"] == []
    below = told(browser, host=URLS[1].split("/")[2].partition(".")[2] + ".nowhere", below="1")
    assert below["counts"] == []


@pytest.mark.parametrize(
    "asked",
    [{"url": "javascript:alert(1)"}, {"url": "x" * 9000}, {"url": "http://[::1"},
     {"host": "http://a.example/"}, {"host": "%' or 1=1 --"}, {"host": "*.a.example"},
     {"url": "http://a.example/*"}],
)  # fmt: skip
def test_nonsense_is_a_sentence(browser: httpx.Client, asked: dict[str, str]) -> None:
    answer = browser.get("/mine", params=asked)
    assert answer.status_code in (400, 414, 431)
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("ending", ["", "\x00", "\u202e"])
def test_hostile_addresses_are_text(browser: httpx.Client, ending: str) -> None:
    answer = browser.get("/mine", params={"url": HOSTILE + ending})
    assert "\u202e" not in answer.text
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


def post(browser: httpx.Client, body: bytes) -> dict[str, Any]:
    name = '"><script>alert(1)</script>.jpg'
    headers = {"Accept": "application/json"}
    answer = browser.post("/mine", files={"image": (name, body)}, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_same_file_is_found_and_no_more_is_said_of_others(
    line: Database, browser: httpx.Client
) -> None:
    found = post(browser, PHOTO)
    assert [row["sample_id"] for row in found["same_file"]] == [ids(line)[URLS[0]]]
    assert post(browser, OTHER)["same_file"] == []
    page = browser.post("/mine", files={"image": ("x", PHOTO)}).text
    assert "this very file" in page
    assert "nothing of it is kept" in page


def test_each_degree_of_likeness_has_its_own_words(line: Database, folder: Path) -> None:
    """A similar picture that is called the same, or a copy that is called similar."""
    known = ids(line)
    near = [(URLS[0], 1.0), (URLS[1], 0.97), (URLS[2], 0.95), (URLS[3], 0.5)]
    found = [{"id": known[url], "similarity": s} for url, s in near]
    found.append({"id": 1 << 40, "similarity": 0.99})  # of the index, and of no release here
    with (
        neighbours(found) as url,
        exploring([mine.routes], page_login(line), folder, knn=KnnClient(url)) as client,
    ):
        told = post(client, PHOTO)
        assert [row["url"] for row in told["same_file"]] == [URLS[0]]
        assert [row["url"] for row in told["same_picture"]] == [URLS[1]]
        assert [(row["url"], row["similarity"]) for row in told["similar"]] == [(URLS[2], 0.95)]
        assert "Probably" in client.post("/mine", files={"image": ("x", SMALLER)}).text


def test_a_busy_neighbour_service_is_said(line: Database, folder: Path) -> None:
    with (
        neighbours([], 503) as url,
        exploring([mine.routes], page_login(line), folder, knn=KnnClient(url)) as client,
    ):
        told = post(client, PHOTO)
        assert told["same_file"]
        assert "too busy" in told["trouble"]


def test_evidence_is_that_of_the_row(line: Database, browser: httpx.Client) -> None:
    row = ids(line)[URLS[1]]
    page = browser.get(f"/r/ours/{row}/evidence")
    assert page.status_code == 200
    for said in ("a.wat.gz", "http://p.example/", "model-d1", "success", "No release is recorded"):
        assert said in page.text
    told = browser.get(f"/r/ours/{row}/evidence", headers={"Accept": "application/json"}).json()
    assert (told["url"], told["sample_id"]) == (URLS[1], row)
    assert told["downloads"][0]["width"] == 640
    assert browser.get("/evidence", params={"url": URLS[-1]}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/r/ours/{failed}/evidence", "/r/theirs/{row}/evidence", "/r/ours/99999/evidence",
             "/r/..%2f..%2fetc/1/evidence", "/evidence?url=http://nobody.example/"]
)  # fmt: skip
def test_no_pair_is_shown_by_its_number_alone(
    line: Database, browser: httpx.Client, path: str
) -> None:
    """SAMPLE_IDs counted up would give the URLs that no release took."""
    known = ids(line)
    asked = path.format(failed=known[URLS[-1]], row=known[URLS[1]])
    assert browser.get(asked).status_code == 404


def test_the_login_of_the_page_may_call_its_functions_and_nothing_else(line: Database) -> None:
    """A right of PUBLIC's, or of another file's grant, that reaches the page that anybody asks."""
    role = line.group("explore")
    assert {name for (name,) in line.rows(
        "select p.proname from pg_proc p join pg_namespace n on n.oid = pronamespace"
        " where nspname in ('mill', 'api', 'report', 'inbox') and has_function_privilege(%s, p.oid, 'execute')", role,
    )} == {"hidden_v1", "known_urls_v1", "compare_image_v1", "evidence_v1", "request_removal_v1", "removal_request_v1"}  # fmt: skip
    assert line.rows(
        "select c.oid::regclass, privilege from pg_class c join pg_namespace n on n.oid = relnamespace,"
        " unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) privilege"
        " where nspname in ('mill', 'api', 'report', 'inbox') and relkind in ('r', 'p', 'v', 'm')"
        " and (has_table_privilege(%s, c.oid, privilege) or has_any_column_privilege(%s, c.oid, 'select'))", role, role,
    ) == []  # fmt: skip
    assert line.rows(
        "select nspname from pg_namespace where nspname in ('mill', 'report', 'inbox') and has_schema_privilege(%s, oid, 'usage')", role
    ) == []  # fmt: skip
    assert line.rows("select roleid::regrole from pg_auth_members where member = %s::regrole", role) == []  # fmt: skip


@pytest.mark.parametrize(
    ("query", "values"),
    [("api.hidden_v1(%s)", (list(range(1001)),)),
     ("api.known_urls_v1(%s)", ([key(str(i)) for i in range(501)],)),
     ("api.compare_image_v1(%s, 0, null)", (list(range(201)),)),
     ("api.evidence_v1(%s, %s)", (key("x"), ["m"] * 51)),
     ("api.request_removal_v1(%s, false, 'x', '', '{}', sha256(''))", (["x" * 10_001],)),
     ("api.request_removal_v1(%s, false, 'x', '', '{}', sha256(''))", ([None],)),
     ("api.request_removal_v1('{a}', false, null, '', '{}', sha256(''))", ()),
     ("api.request_removal_v1('{a}', null, 'x', '', '{}', null)", ()),
     ("api.request_removal_v1('{a}', false, 'x', '', %s, sha256(''))", (["x" * 15_001],))],
)  # fmt: skip
def test_its_functions_are_bounded_whoever_calls_them(
    line: Database, query: str, values: tuple[Any, ...]
) -> None:
    """The page's checks alone: whoever takes the login over asks without them."""
    with psycopg.connect(page_login(line), autocommit=True) as stolen:
        with pytest.raises(psycopg.Error) as refused:
            stolen.execute(f"select * from {query}", values)
        assert refused.value.sqlstate == "PM003"

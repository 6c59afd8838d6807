"""The pages of pairs: kept once, if at least one new pair is theirs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pairmill.workers.errors import Malformed
from support.database import CRAWLED, QUEUES, Database, page_row, pair_rows
from support.states import newest_submission

PAGES = [f"http://page.example/{n}" for n in range(3)]
URLS = [f"http://h.example/{n}.jpg" for n in range(6)]
KEPT = (
    "select w.location, g.page, g.url, g.crawled_at,"
    " (select count(*) from mill.pair p where (p.wat_id, p.submission_id, p.page)"
    "  = (g.wat_id, g.submission_id, g.page))::integer"
    " from mill.page g join mill.wat_file w using (wat_id)"
    " order by w.location, g.submission_id, g.page"
)


def of(*numbers: int) -> list[str]:
    return [PAGES[number] for number in numbers]


def test_a_page_is_kept_once_by_those_files_that_have_new_pairs_of_it(db: Database) -> None:
    """Faults: a page a pair; pages whose pairs are all duplicates; of two files the first's page."""
    db.extract(URLS[:4], "a", pages=of(0, 0, 1, 1))
    db.extract([URLS[0], URLS[3], URLS[4]], "b", pages=of(0, 1, 1))  # two of them duplicates
    db.extract(URLS[:5], "c", pages=of(0, 0, 1, 1, 2))
    db.extract(URLS[5:], "d")  # by a program that knows no pages
    assert db.admin.execute(KEPT).fetchall() == [
        ("a", 0, PAGES[0], CRAWLED, 2), ("a", 1, PAGES[1], CRAWLED, 2),
        ("b", 1, PAGES[1], CRAWLED, 1),
    ]  # fmt: skip
    assert db.rows("select n from mill.pair where page is null and url = %s", URLS[5]) != []
    assert db.value("select count(*) from inbox.page") == 0


def test_an_extraction_that_is_done_again_has_pages_of_its_own(db: Database) -> None:
    """Faults: the second extraction's pages collide with the withdrawn one's, or stand for them."""
    db.extract(URLS[:2], "a", pages=of(0, 1))
    db.admin.execute("select mill.withdraw(%s, 'test')", (newest_submission(db, "extract"),))
    db.extract(URLS[:1], "a", pages=of(2))
    counting = (
        "select g.url from mill.page g where not exists"
        " (select from mill.withdrawn w where w.submission_id = g.submission_id)"
    )
    assert db.rows(counting) == [(PAGES[2],)]
    assert [row[2] for row in db.admin.execute(KEPT)] == PAGES


def test_a_file_far_ahead_has_a_partition(db: Database) -> None:
    """Fault: the merge is refused until the steward makes partitions; or batches get these too."""
    db.admin.execute("alter sequence mill.wat_file_wat_id_seq restart with 5000")
    db.extract(URLS[:1], pages=of(0))
    assert db.rows("select tableoid::regclass::text from mill.page") == [("mill.page_w000005",)]
    db.queue("steward")[0].maintain("ensure_partitions")
    children = "select inhrelid::regclass::text from pg_inherits where inhparent = 'mill.%s'::regclass order by 1"
    assert [name for (name,) in db.rows(children % "page")] == [
        "mill.page_w000000", "mill.page_w000004", "mill.page_w000005",
    ]  # fmt: skip
    assert db.rows(children % "pair") == [("mill.pair_b000000",)]


@pytest.mark.parametrize("sent", [[], [1], [0, 0], [0, 1, 1]], ids=str)
def test_each_page_of_a_row_is_there_once(db: Database, sent: list[int]) -> None:
    """Faults: a pair whose page nobody knows; after a lost answer a page twice, and its pairs too."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pages([page_row(claim.lease_id, number, PAGES[number]) for number in sent])
    queue.copy_pairs(pair_rows(claim.lease_id, URLS[:2], pages=[0, 0]))
    with pytest.raises(Malformed, match="page"):
        queue.submit_extract(claim.lease_id, 2, [("image", "links", "", 2)])


def test_what_is_no_page_is_refused(db: Database) -> None:
    """Faults: a password, a control sequence or a time that no program can read is kept."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    good = page_row(claim.lease_id, 0, PAGES[0])
    urls = [
        "javascript:alert(1)", "", "http://", "http:///a", "http://h/#a", "http://h/a b",
        "http://h/\x1b[31m", "http://h\n/", "http://u:p@h/", "http://" + "x" * 2042,
    ]  # fmt: skip
    times = [datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
    refusals = [("x" * 51, "v"), ("s", "x" * 501), ("s", None), (None, "v")]
    for row in (
        (claim.lease_id, -1, *good[2:]),
        *((*good[:2], url, *good[3:]) for url in urls),
        *((*good[:3], time, *good[4:]) for time in times),
        *((*good[:4], *refusal) for refusal in refusals),
    ):
        with pytest.raises(Malformed, match=r"violates check constraint|no control characters"):
            queue.copy_pages([row])
    assert db.value("select count(*) from inbox.page") == 0


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_the_merge_reads_each_of_its_tables_a_few_times_whatever_the_statistics(
    db: Database,
) -> None:
    """Fault: the statistics of an emptied inbox make a loop over all pages for each row."""
    dsn = db.login("steward")
    db.admin.execute("load 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_analyze = on",
                    "log_timing = off", "log_format = json", "log_level = notice"):  # fmt: skip
        login = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
        db.admin.execute(f'alter role "{login}" set auto_explain.{setting}')
    db.admin.execute(f"alter role \"{login}\" set session_preload_libraries = 'auto_explain'")
    steward = QUEUES["steward"](dsn)
    plans: list[dict[str, Any]] = []
    steward._connected().add_notice_handler(
        lambda notice: plans.append(
            json.loads((notice.message_primary or "").partition("plan:")[2])
        )
    )
    steward.register()
    queue, instance = db.queue("extract")
    db.admin.execute("update mill.setting set batch_size = 10, pairs_per_wat = 3000")  # 32 are open
    # an inbox as autovacuum finds it: as large as it was, and without a row
    db.admin.execute(
        "insert into inbox.page (lease_id, page) select 0, n from generate_series(1, 5000) n"
    )
    db.admin.execute("delete from inbox.page")
    db.admin.execute("vacuum (analyze, truncate off) inbox.page")
    for number in range(7):  # from the sixth on a session may use plans for any argument
        db.add_wat(f"{number}.wat")
        claim = queue.claim(instance)
        assert claim
        refusing = ("meta robots", "noai")
        queue.copy_pages([page_row(claim.lease_id, n, None, refusing) for n in range(40)])
        urls = [f"http://h.example/{number}/{n}" for n in range(200)]
        queue.copy_pairs(pair_rows(claim.lease_id, urls, pages=[n // 5 for n in range(200)]))
        queue.submit_extract(claim.lease_id, 200, [("image", "links", "", 200)])
        assert steward.accept_next()
    steward.close()
    assert db.value("select count(*) from mill.opt_out") == 7 * 200
    reads = [
        node for plan in plans for node in nodes(plan["Plan"])
        if node.get("Relation Name") in ("pair", "page", "merge_row")
        and node.get("Schema", "inbox") != "mill"
    ]  # fmt: skip
    assert {"pair", "page", "merge_row"} <= {node["Relation Name"] for node in reads}
    assert max(node["Actual Loops"] for node in reads) <= 4

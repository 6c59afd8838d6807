"""Removals by every kind of entry, lists that are wrong, and requests."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pairmill.ops.admin import doctor, removal, removal_requests
from pairmill.ops.admin.removal_sources import sources
from pairmill.ops.errors import UserError
from support.database import Database
from support.removals import URLS, download, image, imported, near, removed
from support.template import Template

ENTRIES: dict[str, Any] = {
    "URL": (URLS[2], {"by_url": 1}),
    "prefix": ("http://h2.example/alb*", {"by_prefix": 1}),
    "prefix in other words": ("HTTP://H2.example:80/album/2*", {"by_prefix": 1}),
    "host": ("h2.example", {"by_host": 1}),
    "md5": (image(2)[:16].hex(), {"by_image": 1}),
    "SHA-1": (image(2)[:20].hex().upper(), {"by_image": 1}),
    "sha256": (f"sha256:{image(2).hex()}", {"by_image": 1}),
    "dHash": (f"dhash:{int.from_bytes(image(2)[:8], signed=True)}", {"by_image": 1}),
    "dHash in hexadecimal": (f"dhash:0x{image(2)[:8].hex()}", {"by_image": 1}),
    "PDQ": (f"pdq:{near(image(2), 31).hex()}", {"by_image": 1}),
    "PDQ within 8": (f"pdq:{near(image(2), 8).hex()}/8", {"by_image": 1}),
    "sample": ("sample:{}", {"by_sample": 1}),
}


@pytest.fixture(scope="module")
def line(template: Template) -> Iterator[Database]:
    """All pairs downloaded; each test leaves it without removals of them."""
    with template.copy() as database:
        database.extract(URLS)
        database.close_batches()
        download(database)
        yield database


@pytest.mark.parametrize("name", ENTRIES)
def test_a_removal_finds_what_it_names_among_known_pairs(line: Database, name: str) -> None:
    """Would catch a kind that is kept, and never looked for."""
    entry, by = ENTRIES[name]
    number = line.value("select mill.sample_id(batch_id, n) from mill.pair where url = %s", URLS[2])
    found = removal.add(line.admin, [entry.format(number)], "", False)
    assert removed(line) == [2]
    assert {k: v for k, v in vars(found).items() if v} == {"added": 1, "matching_pairs": 1, **by}
    removal.undo(line.admin, removal.named_by(line.admin, [entry.format(number)]), "", False)
    assert removed(line) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [(f"pdq:{near(image(2), 32).hex()}", None), (f"pdq:{near(image(2), 9).hex()}/8", None),
     ("http://h2.example/album/3*", None), ("https://h2.example/*", None),
     ("sample:99999999", "no pair has SAMPLE_ID 99999999")],
)  # fmt: skip
def test_what_is_beside_it_names_nothing(line: Database, entry: str, says: str | None) -> None:
    """Would catch a distance or a prefix that reaches farther than it says."""
    if says:
        with pytest.raises(UserError, match=says):
            removal.add(line.admin, [entry], "", False)
        assert line.value("select count(*) from mill.removal") == 0
        return
    assert removal.add(line.admin, [entry], "", True).matching_pairs == 0


@pytest.mark.parametrize(
    ("lines", "how", "says"),
    [
        ([URLS[0], "nonsense", URLS[1]], {}, "list, line 2: 'nonsense' is no http"),
        (["# nothing"], {}, "names nothing"),
        (["pdq:" + "00" * 32], {}, "line 1: .* flat image"),
        ([URLS[0]], {"format": "xml"}, "--format is one of"),
        ([URLS[0]], {"source": "I W F"}, "is no source's name"),
        ([URLS[0]], {"dated": datetime(2100, 1, 1, tzinfo=UTC)}, "which is to come"),
        ([URLS[0]], {"dated": datetime(2020, 1, 1, tzinfo=UTC)}, "a newer one of iwf"),
        ([URLS[0]], {"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "expired on 2020-01-01"),
    ],
)
def test_a_list_that_is_wrong_changes_nothing(
    line: Database, tmp_path: Path, lines: list[str], how: dict[str, Any], says: str
) -> None:
    if not sources(line.admin):
        imported(line, tmp_path / "list", ["http://other.example/"])
    before = line.rows("select * from mill.removal"), line.rows("select * from mill.removal_list")
    with pytest.raises(UserError, match=says):
        imported(line, tmp_path / "list", lines, **how)
    assert before == (
        line.rows("select * from mill.removal"), line.rows("select * from mill.removal_list")
    )  # fmt: skip


def test_a_removal_of_much_is_asked_about_and_taken_back(line: Database) -> None:
    """Would catch embeddings that are gone before the answer, and removals that stay after a no."""

    def no(report: removal.Report) -> None:
        assert (report.matching_pairs, removed(line)) == (1, [3])
        raise UserError("not confirmed")

    before = line.value("select count(*) from mill.removal")
    with pytest.raises(UserError, match="not confirmed"):
        removal.add(line.admin, ["h3.example"], "", False, confirm=no)
    assert (removed(line), line.value("select count(*) from mill.removal")) == ([], before)


def test_a_request_is_noted_decided_once_and_late_when_it_is_due(line: Database) -> None:
    add = removal_requests.add
    with pytest.raises(UserError, match="who asked"):
        add(line.admin, [URLS[3]], requester=" ")
    with pytest.raises(UserError, match="is no http"):
        add(line.admin, ["nonsense"], requester="a@b.example")
    came = datetime.now(UTC) - timedelta(days=31)
    first = add(line.admin, [URLS[3]], requester="a@b.example", evidence="I took it", received=came)
    second = add(line.admin, [URLS[4]], requester="b@b.example")["request_id"]
    assert (first["late"], removal_requests.late(line.admin)) == (True, 1)
    assert [r["request_id"] for r in removal_requests.listed(line.admin, "open", 9)] == [
        first["request_id"], second,
    ]  # fmt: skip
    number = first["request_id"]
    assert removal_requests.approve(line.admin, number, "", None, dry_run=True).matching_pairs == 1
    assert removal_requests.get(line.admin, number)["state"] == "open"

    def another(report: removal.Report) -> None:  # who refuses while the pairs are searched
        with (
            psycopg.connect(line.dsn, autocommit=True) as connection,
            pytest.raises(UserError, match="being decided by another admin"),
        ):
            removal_requests.refuse(connection, number, "no")

    removal_requests.approve(line.admin, number, "it is hers", None, confirm=another)
    assert removal_requests.get(line.admin, number)["state"] == "approved"
    assert removed(line) == [3]
    reason = "select removed_because from report.sample where batch_id = 0 and removed_because is not null"
    assert line.value(reason) == f"request {number}"
    with pytest.raises(UserError, match=f"request {number} was approved by"):
        removal_requests.refuse(line.admin, number, "late")
    with pytest.raises(UserError, match="needs --why"):
        removal_requests.refuse(line.admin, second, "")
    removal_requests.refuse(line.admin, second, "not theirs")
    assert (removal_requests.late(line.admin), removed(line)) == (0, [3])
    removal.undo(line.admin, removal.named_by(line.admin, [URLS[3]]), "", False)


def test_no_view_for_researchers_has_a_hash_a_list_or_a_requester(line: Database) -> None:
    """Would catch a view over what partners gave in confidence, or over who asked."""
    secret = ("removal_list", "removal_listed", "removal_request", "pdq_waiting")
    query = (
        "select distinct v.view_name from information_schema.view_table_usage v"
        " where v.view_schema = 'report' and v.table_schema = 'mill' and v.table_name = any(%s)"
    )
    assert line.rows(query, list(secret)) == []
    columns = (
        "select view_name, column_name from information_schema.view_column_usage where view_schema ="
        " 'report' and table_name = 'removal' and column_name in ('source', 'md5', 'sha1', 'pdq')"
    )
    assert line.rows(columns) == []
    with psycopg.connect(line.login("download")) as worker:
        for table in secret:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(f"select * from mill.{table}")
            worker.rollback()


def test_the_doctor_says_what_is_late(line: Database, tmp_path: Path) -> None:
    """Would catch a clock that nobody sees."""
    came = datetime.now(UTC) - timedelta(days=31)
    removal_requests.add(line.admin, ["late.example"], requester="a@b.example", received=came)
    imported(line, tmp_path / "list", ["http://c3p.example/"], source="c3p")
    line.admin.execute("update mill.removal_list set expires_at = now() where source = 'c3p'")
    said = [finding.text for finding in doctor._check_removals(line.admin)]
    assert said[0].startswith("1 requests for removal are late")
    assert said[1].startswith("the lists of removals of c3p expired")
    assert len(said) == 2

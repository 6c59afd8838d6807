"""From the form to the next release: a row is looked for, asked for, approved, and gone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import removal_requests
from pairmill.ops.cli import app
from pairmill.ops.release import release, why
from pairmill.ops.web.explore import evidence, mine, requests
from support.database import Database, say_migrated
from support.explore import exploring, page_login
from support.hostile_text import RAW
from support.released import URLS, add_scored_pairs, recipe

ROUTES = (mine.routes, evidence.routes, requests.routes)
JSON = {"Accept": "application/json"}


@pytest.fixture
def scored(db: Database) -> Database:
    say_migrated(db.admin)
    return add_scored_pairs(db)


def pairmill(monkeypatch: pytest.MonkeyPatch, db: Database, arguments: Sequence[str]) -> str:
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def build(db: Database, out: Path) -> set[str]:
    release.build(db.admin, recipe(), out)
    return {url for part in out.glob("*.parquet") for url in pq.read_table(part)["URL"].to_pylist()}


def test_a_row_leaves_by_a_request_and_its_asker_sees_it(
    scored: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, wish = scored, {"reason": "it is\tme", "contact": "me@home.example"}
    before = build(db, tmp_path / "first")
    gone = min(before)
    with exploring(ROUTES, page_login(db), tmp_path / "first") as browser:
        (row,) = browser.get("/mine", params={"url": gone}, headers=JSON).json()["rows"]
        asked = wish | {"samples": str(row["sample_id"]), "attachment": "a letter\nof two lines"}
        sent = browser.post("/remove", data=asked, headers=JSON)
        assert sent.status_code == 201, sent.text
        number = str(sent.json()["request"])
        shown = pairmill(monkeypatch, db, ["removal", "request", "show", number])
        assert "a letter" in shown
        assert not RAW.search(shown)
        pairmill(monkeypatch, db, ["removal", "request", "approve", number, "--why", "it is hers"])
        told = browser.get(sent.json()["status"], headers=JSON).json()
        assert (told["state"], told["answer"], told["pairs"]) == ("approved", "it is hers", 1)
        # the release that is still served does not give it away any more
        assert browser.get("/mine", params={"url": gone}, headers=JSON).json()["rows"] == []
        address = f"/r/first/{row['sample_id']}/evidence"
        assert browser.get(address).status_code == 410
    assert build(db, tmp_path / "second") == before - {gone}


def test_the_evidence_is_what_why_says(scored: Database, tmp_path: Path) -> None:
    """A page that explains a decision otherwise than the command, or with another pair's numbers."""
    build(scored, tmp_path / "ours")
    with exploring(ROUTES, page_login(scored), tmp_path / "ours") as browser:
        for url in (URLS[0], URLS[1], URLS[3], URLS[6]):  # kept, similarity, language, dead
            ours: dict[str, Any] = browser.get(
                "/evidence", params={"url": url}, headers=JSON
            ).json()
            theirs = why.ask(scored.admin, url)
            for column in ("sample_id", "url", "text", "language", "wat", "page"):
                assert ours[column] == theirs[column]
            assert [s["similarity"] for s in ours["scores"]] == [
                s["similarity"] for s in theirs["scores"]
            ]
            (verdict,), (known,) = ours["releases"], theirs["releases"]
            assert (verdict["decision"], verdict["because"]) == (
                known["decision"], known["because"],
            )  # fmt: skip
            assert browser.get("/evidence", params={"url": url}).status_code == 200


def test_the_list_says_where_a_request_came_from(
    scored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exploring([requests.routes], page_login(scored)) as browser:
        wish = {"urls": URLS[0], "reason": "mine", "contact": "me@home.example"}
        assert browser.post("/remove", data=wish).status_code == 303
    removal_requests.add(scored.admin, [URLS[1]], requester="by letter")
    found = removal_requests.listed(scored.admin, "open", 9)
    assert {each["requester"]: each["origin"] for each in found} == {
        "me@home.example": "web", "by letter": "command",
    }  # fmt: skip
    assert "web" in pairmill(monkeypatch, scored, ["removal", "request", "list"])

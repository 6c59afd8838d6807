"""Removals of what comes later, and by lists: what stands, and what no release rests on."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import removal, removal_search
from pairmill.ops.admin.removal_sources import require_removals, sources
from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from support.database import Database
from support.removals import URLS, download, image, imported, near, removed


def test_new_images_and_links_are_named_as_they_come(db: Database) -> None:
    """An image by its hashes at acceptance; by its PDQ at the next search, without which there is no
    release; a link by its prefix at the merge."""
    entries = [
        "http://h0.example/al*",
        image(1)[:20].hex(),
        f"dhash:{int.from_bytes(image(2)[:8], signed=True)}",
    ]
    removal.add(db.admin, [*entries, f"pdq:{near(image(3), 5).hex()}"], "", False)
    db.add_model()
    db.extract(URLS)
    assert db.value("select count(*) from mill.pair") == 5
    db.close_batches()
    download(db)
    db.score()
    assert removed(db) == [1, 2]
    with pytest.raises(UserError, match="1 parts of downloads were not compared"):
        removal.require_found(db.admin)
    embedded = "select count(*) from mill.embedding"
    assert db.value(embedded) == 3
    assert removal_search.compare_waiting(db.admin) == 1
    assert (removed(db), db.value(embedded)) == ([1, 2, 3], 2)
    removal.require_found(db.admin)
    db.admin.execute("select mill.withdraw(max(submission_id), 'it lied') from mill.download")
    assert removed(db) == []  # nobody else gave the images


def test_two_downloads_gave_an_image_and_one_of_them_lied(db: Database) -> None:
    """Would catch a PDQ that is forgotten with the liar, though another gave an image near it."""
    db.extract(URLS)
    db.close_batches()
    download(db)
    db.admin.execute("select mill.retry_outcomes(array['success'], 0, 9, true)")
    download(db, {4: near(image(4), 3)})
    removal.add(db.admin, [f"pdq:{image(4).hex()}"], "", False)
    db.admin.execute("select mill.withdraw(max(submission_id), 'it lied') from mill.download")
    assert removed(db) == [4]


def test_a_probe_hands_over_what_a_prefix_names_while_it_is_searched(db: Database) -> None:
    """Would catch a link that is counted as a duplicate, and not as removed."""
    db.extract(URLS)
    db.admin.execute(
        "insert into mill.removal (source, host, prefix, reason)"
        " values ('http://h0.example/album/*', 'h0.example', 'http://h0.example/album/', ''),"
        " ('http://h1.example/x/*', 'h1.example', 'http://h1.example/x/', '')"
    )
    keys = b"".join(hashlib.md5(url.encode()).digest() for url in URLS)
    assert db.value("select mill.unknown_keys(%s)", keys) == b"\x01"


def test_a_new_list_takes_the_place_of_the_old(db: Database, tmp_path: Path) -> None:
    """What no list names any more goes with --replace alone, and never what somebody added."""
    db.extract(URLS)
    path = tmp_path / "list"
    first = imported(db, path, URLS[:4], dry_run=True)
    assert (first.entries, first.report.matching_pairs) == (4, 4)
    assert (removed(db), sources(db.admin)) == ([], [])
    imported(db, path, URLS[:4])
    imported(db, path, [URLS[1]], source="c3p")
    removal.add(db.admin, [URLS[2]], "by hand", False)
    with pytest.raises(UserError, match="is of the list of"):
        removal.require_unlisted(db.admin, removal.named_by(db.admin, [URLS[1]]))
    kept = imported(db, path, [URLS[3], URLS[5]])
    assert (kept.entries, kept.report.added, kept.gone, kept.undone) == (2, 1, 3, 0)
    assert removed(db) == [0, 1, 2, 3, 5]
    planned = imported(db, path, [URLS[5]], replace=True, dry_run=True)
    assert (planned.gone, planned.undone, planned.allowed) == (4, 2, 2)
    assert removed(db) == [0, 1, 2, 3, 5]
    done = imported(db, path, [URLS[5]], replace=True)
    assert (done.gone, done.undone, removed(db)) == (4, 2, [1, 2, 5])
    found = sources(db.admin)
    assert [(s["source"], s["entries"], s["present"]) for s in found] == [
        ("c3p", 1, 1),
        ("iwf", 1, 1),
    ]
    assert db.value("select count(*) from mill.removal_list") == 4


def test_no_release_rests_on_a_list_that_is_missing_old_or_torn(
    db: Database, tmp_path: Path
) -> None:
    """Each way in which a required source may fail is an error of its own."""

    def wanted(*required: str, days: int = 0) -> Any:
        return SimpleNamespace(required_removals=list(required), max_removals_age_days=days)

    require_removals(db.admin, wanted())
    path, now = tmp_path / "list", datetime.now(UTC)
    imported(db, path, URLS[:2], dated=now - timedelta(days=9), expires=now + timedelta(days=1))
    require_removals(db.admin, wanted("iwf", days=10))
    for recipe, says in (
        (wanted("iwf", "c3p"), "requires the removals of c3p, and no list"),
        (wanted("iwf", days=8), "wants one of the last 8 days"),
    ):
        with pytest.raises(UserError, match=says):
            require_removals(db.admin, recipe)
    db.admin.execute("update mill.removal_list set expires_at = now()")
    with pytest.raises(UserError, match="the list of iwf expired"):
        require_removals(db.admin, wanted("iwf"))
    imported(db, path, URLS[:2])
    require_removals(db.admin, wanted("iwf", days=1))
    db.admin.execute("delete from mill.removal where source = %s", (URLS[0],))
    with pytest.raises(UserError, match="has 2 entries, and 1 of them"):
        require_removals(db.admin, wanted("iwf"))
    imported(db, path, URLS[:2])
    db.admin.execute("update mill.removal set found_at = null where source = %s", (URLS[0],))
    with pytest.raises(UserError, match="not over"):
        require_removals(db.admin, wanted("iwf"))
    assert removal.finish_search(db.admin, None) == 1
    require_removals(db.admin, wanted("iwf"))


def test_the_commands_of_lists_and_requests(
    db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each as a person types it, and as a script reads it."""
    db.extract(URLS)
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["removal", *arguments])
        assert done.exit_code == code, done.output + str(done.exception)
        return done.output + str(done.exception or "")

    path = tmp_path / "list.csv"
    path.write_text(f"url,sha256\n{URLS[0]},\n{URLS[1]},{image(1).hex()}\n")
    listed = ("import", str(path), "--source", "iwf", "--format", "csv")
    said = run(*listed, "--dated", "2026-01-31", "--dry-run").splitlines()
    assert said[0] == "iwf, of 2026-01-31: 3 entries"
    assert said[1].startswith(
        "3 would be added, 0 known already; they name 2 known pairs (2 by URL)"
    )
    assert run("sources") == "no list of removals was imported\n"
    assert json.loads(run(*listed, "--json"))["report"]["added"] == 3
    path.write_text("url\nhttp://new.example/\n")
    assert "3 removals of earlier lists not in this one" in run(*listed)
    assert "3 removals not in it any more: 3 taken back" in run(*listed, "--replace")
    (found,) = json.loads(run("sources", "--json"))
    assert (found["source"], found["entries"], found["expired"]) == ("iwf", 1, False)
    path.write_text("url\nnonsense\n")
    assert "list.csv, line 2: 'nonsense' is no URL" in run(*listed, code=1)
    assert "is of the list of iwf" in run("remove", "http://new.example/", code=1)

    noted = run("request", "add", URLS[2], "--from", "ada@a.example", "--received", "2026-01-01")
    assert noted == "request 1 noted, due on 2026-01-31\n"
    assert json.loads(run("request", "list", "--json"))[0]["late"] is True
    assert "requester: ada@a.example" in run("request", "show", "1")
    assert "1 would be added" in run("request", "approve", "1", "--dry-run")
    assert "request 1 approved" in run("request", "approve", "1", "--why", "hers")
    assert run("request", "list", "--state", "open") == "no such requests\n"
    run("request", "add", URLS[3], "--from", "b@a.example")
    assert run("request", "refuse", "2", "--why", "not theirs").startswith("request 2 refused")
    assert removed(db) == [2]
    assert json.loads(run("search", "--json")) == {"removals": 0, "parts": 0, "pairs": 0}

"""What a release decided is recorded with it, and says why a pair is in it or not."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.errors import UserError
from pairmill.ops.release import release, why
from pairmill.ops.release.folder import manifest_text, readme
from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes_of, say_migrated
from support.line import Line, sentence
from support.released import URLS, add_scored_pairs, recipe


@pytest.fixture
def scored(db: Database) -> Database:
    say_migrated(db.admin)
    return add_scored_pairs(db)


def decisions(db: Database, release_id: int) -> dict[int, str]:
    query = "select sample_id, decision from report.release_decision where release_id = %s"
    return dict(db.rows(query, release_id))


def test_a_record_says_what_folder_and_manifest_say(scored: Database, tmp_path: Path) -> None:
    """Would catch: a byte for another pair, a reason under another's number, a digest of other
    bytes; and an older build taken for the newest."""
    db = scored
    removal.add(db.admin, [URLS[2]], "asked for", False)
    for number, values in enumerate(({"languages": []}, {"min_similarity": 0.5}, {}), 1):
        out = tmp_path / str(number)
        manifest = release.build(db.admin, recipe(**values), out)
        found = decisions(db, number)
        counts = Counter(found.values())
        rows = pq.read_table(out / "part-00000.parquet")["SAMPLE_ID"].to_pylist()
        assert sorted(s for s, decision in found.items() if decision == "kept") == rows
        assert counts.pop("kept", 0) == manifest.kept == len(rows)
        assert counts == manifest.excluded
        digest = hashlib.sha256(manifest_text(out)).hexdigest()
        columns = "name, candidates, kept, excluded, recipe, manifest_sha256, is_newest"
        (row,) = db.rows(f"select {columns} from report.release r where release_id = %s", number)
        assert row == (
            "test", 12, manifest.kept, manifest.excluded, manifest.recipe, digest, True,
        )  # fmt: skip
    newest = db.rows("select release_id from report.release where is_newest")
    assert newest == [(3,)]
    # the same by what look-ups of one pair use
    query = (
        "select mill.sample_id(p.batch_id, p.n), b.words[get_byte(b.decisions, p.n)]"
        " from mill.pair p join mill.newest_release_batch b using (batch_id)"
    )
    assert dict(db.rows(query)) == decisions(db, 3)


def test_what_is_no_candidate_or_came_later_is_in_no_record(
    scored: Database, tmp_path: Path
) -> None:
    """Would catch: a pair that a release never saw, and that its record calls kept."""
    db = scored
    db.extract(["http://gone.example/1.jpg"], "b.wat.gz")
    gone = db.value("select submission_id from mill.pair where url like '%%gone%%'")
    db.admin.execute("select mill.withdraw(%s, 'wrong')", (gone,))
    db.extract(["http://sound.example/1.mp3"], "c.wat.gz")
    db.admin.execute("update mill.batch set link_kind = 'audio' where closed_at is null"
                     " and batch_id = (select max(batch_id) from mill.pair)")  # fmt: skip
    release.build(db.admin, recipe(), tmp_path / "out")
    assert len(decisions(db, 1)) == 12
    db.extract(["http://late.example/1.jpg"], "d.wat.gz")
    late = why.ask(db.admin, "http://late.example/1.jpg")["releases"][0]
    assert late["decision"] is None
    assert late["because"].startswith(why.NOT_RECORDED)
    (sample,) = (
        s
        for s, url in db.rows(
            "select mill.sample_id(batch_id, n), url from mill.pair where submission_id = %s", gone
        )
    )
    told = why.ask(db.admin, str(sample))["releases"][0]
    assert told["today"] == "no candidate"
    assert told["because"].startswith("not recorded: the pair was no candidate when")
    assert "its extraction was withdrawn: wrong" in told["because"]


def interrupted(db: Database, out: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.build(db.admin, recipe(), out, progress=interrupt)


def unnamed(db: Database, out: Path) -> None:
    with pytest.raises(UserError, match="has no model none"):
        release.build(db.admin, recipe(model="none"), out)


def taken(db: Database, out: Path) -> None:
    """The folder is made by another while the release is written."""

    def take(done: int, total: int) -> None:
        out.mkdir()
        (out / "mine").touch()

    with pytest.raises(OSError, match="not empty"):
        release.build(db.admin, recipe(), out, progress=take)
    shutil.rmtree(out)


def unrecorded(db: Database, out: Path) -> None:
    db.admin.execute("set default_transaction_read_only = on")  # as a standby has it
    with pytest.raises(UserError, match="--no-record builds it without that"):
        release.build(db.admin, recipe(), out)
    release.build(db.admin, recipe(), out, record=False)
    shutil.rmtree(out)


def test_a_build_without_an_end_leaves_no_record_and_no_folder(
    scored: Database, tmp_path: Path
) -> None:
    for ending in (interrupted, unnamed, taken, unrecorded):
        ending(scored, tmp_path / "out")
        assert list(tmp_path.iterdir()) == [], ending
        assert scored.value("select count(*) from mill.release") == 0, ending
        assert scored.value("select count(*) from mill.release_batch") == 0, ending


def test_a_record_that_was_lost_with_the_database_is_said(
    scored: Database, server: str, tmp_path: Path
) -> None:
    """Would catch: a traceback after hours, and a folder that is thought to be half done."""
    with psycopg.connect(scored.dsn, autocommit=True) as connection:
        # a deferred trigger is fired by the commit, which comes last
        connection.execute(
            "create function mill.late() returns trigger language plpgsql as"
            " 'begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); return null; end'"
        )
        connection.execute(
            "create constraint trigger late after insert on mill.release deferrable initially"
            " deferred for each row execute function mill.late()"
        )
        with pytest.raises(UserError, match="is whole, but the database was lost before"):
            release.build(connection, recipe(), tmp_path / "out")
    assert (tmp_path / "out" / "_release.parquet").is_file()
    assert scored.value("select count(*) from mill.release") == 0


WHY: list[tuple[int, dict[str, Any], str, str]] = [
    # URL, values of the recipe, decision, why
    (0, {}, "kept", "similarity 0.3 ≥ 0.3"),
    (1, {}, "similarity", "similarity 0.2999 < 0.3"),
    (1, {"min_similarity_by_language": {"en": 0.29}}, "kept", "similarity 0.2999 ≥ 0.29"),
    (1, {"min_similarity": 0.29994}, "similarity", "similarity 0.2999 < 0.29994"),
    (3, {}, "language", "language de, and the recipe keeps en"),
    (0, {"language_detectors": ["cld3"]}, "kept", "similarity 0.3 ≥ 0.3"),
    (0, {"language_detectors": ["fasttext"]}, "language_detector",
     "its language is by cld3, and the recipe takes fasttext"),
    (0, {"min_text_length": 14}, "text_too_short", "a text of 13 characters < 14"),
    (0, {"min_bytes": 6001}, "too_few_bytes", "6,000 bytes < 6,001"),
    (6, {}, "download_failed", "http_error, HTTP 200, on attempt 1"),
    (9, {}, "download_failed", "timeout, HTTP 200, on attempt 1"),
    (3, {"languages": [], "multilingual_model": "model-d2"}, "not_scored",
     "not scored by model-d2: no scoring of it is queued: `pairmill model backfill` queues it"),
    (0, {"tags": {"a": "tagger-t1"}, "min_tag": {"a": 1}}, "not_tagged", "no value by tagger-t1"),
]  # fmt: skip


def test_why_says_the_reason_with_its_numbers(scored: Database, tmp_path: Path) -> None:
    """Would catch: numbers of another model, language or threshold than the release's own."""
    db = scored
    db.add_tagger()
    db.admin.execute(
        "insert into mill.model (name, pretrained, digest, dims) values ('model-d2', '', 'd2', 4)"
    )
    for at, values, decision, says in WHY:
        told = why.ask(db.admin, URLS[at], recipe=recipe(**values))
        (row,) = told["releases"]
        assert (row["today"], row["because"]) == (decision, says)
        assert told["url"] == URLS[at]
        # what gave no image waits for no scoring
        assert ("score: " in "\n".join(why.lines(told))) is (told["outcome"] == "success")
        manifest = release.build(db.admin, recipe(**values), tmp_path / "out", record=False)
        shutil.rmtree(tmp_path / "out")
        assert manifest.excluded.get(decision, manifest.kept) > 0


def test_why_tells_what_was_decided_from_what_has_changed(scored: Database, tmp_path: Path) -> None:
    db = scored
    release.build(db.admin, recipe(), tmp_path / "1")
    removal.add(db.admin, [URLS[0]], "asked by the owner", False)
    told = why.ask(db.admin, URLS[0] + "#fragment")
    (row,) = told["releases"]
    assert (row["decision"], row["today"]) == ("kept", "removed")
    assert "since then it changed; today: removal 1 of" in row["because"]
    assert row["because"].endswith("names it (asked by the owner)")
    assert told["removal_id"] == 1
    number = why.ask(db.admin, str(told["sample_id"]), ["1"])
    assert number["releases"] == told["releases"]
    text = "\n".join(why.lines(told))
    assert "extraction: from a.wat.gz" in text
    assert "score: model-d1: scored, similarity 0.3000" in text
    assert ", record 1: kept: since then it changed" in text
    # a model that is not there any more
    db.admin.execute('update mill.release set recipe = recipe || \'{"model": "gone"}\'')
    (row,) = why.ask(db.admin, URLS[0])["releases"]
    assert (row["decision"], row["today"]) == ("kept", None)
    assert "has no model gone" in row["because"]


def test_why_of_what_no_pair_has(scored: Database) -> None:
    db = scored
    db.admin.execute(
        "update mill.crawl_count set stage = 'dropped', name = 'no_text' where stage = 'links'"
    )
    removal.add(db.admin, ["*.away.example"], "moved", False)
    told = why.ask(db.admin, "https://a.away.example/1.jpg")
    text = "\n".join(why.lines(told))
    assert not told["known"]
    assert "https://a.away.example/1.jpg is not known: no pair has it" in text
    assert "removal 1 names it, and lets nothing in (moved)" in text
    assert "links dropped at extraction, of which only counts are kept: no_text 12" in text
    for question, says in (
        ("99999", "no pair with the SAMPLE_ID 99999"),
        ("1" * 30, "is no SAMPLE_ID"),
        ("not a url", "neither a SAMPLE_ID nor a URL"),
    ):
        with pytest.raises(UserError, match=says):
            why.ask(db.admin, question)
    with pytest.raises(UserError, match="no release 'x' is recorded; recorded are: none"):
        why.ask(db.admin, URLS[0], ["x"])


def test_an_opt_out_is_the_reason_with_its_words(db: Database) -> None:
    say_migrated(db.admin)
    db.add_model()
    db.extract(["http://h.example/1.jpg", "http://h.example/2.jpg"])
    told = why.ask(db.admin, "http://h.example/1.jpg", recipe=recipe())
    assert "is open: it is downloaded once that is closed" in told["releases"][0]["because"]
    db.close_batches()
    told = why.ask(db.admin, "http://h.example/1.jpg", recipe=recipe())
    assert told["releases"][0]["because"].startswith("not downloaded: task 2 is ready (")
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    refused = replace(
        outcomes_of([0, 1], [Outcome.OPTED_OUT] * 2),
        refused_positions=[0, 1], signal=["robots.txt"] * 2, value=["Disallow: /"] * 2,
        source=["http://h.example/robots.txt"] * 2, age=[5.0] * 2,
    )  # fmt: skip
    queue.submit_download(claim.lease_id, 0, refused)
    queue.complete(claim.lease_id)
    db.accept_all()
    url = db.value("select url from mill.pair where n = 0")
    (row,) = why.ask(db.admin, url, recipe=recipe())["releases"]
    assert row["because"] == (
        "opted out: robots.txt of http://h.example/robots.txt says 'Disallow: /'"
    )


def test_what_is_not_done_is_said_and_strict_builds_nothing(db: Database, tmp_path: Path) -> None:
    """Would catch: a release in the middle of the downloads that looks like the last one."""
    say_migrated(db.admin)
    db.add_model()
    db.add_wat("later.wat.gz")
    db.add_wat("sound.wat.gz")
    db.admin.execute(
        "update mill.wat_file set link_kinds = '{audio}' where location = 'sound.wat.gz'"
    )
    db.admin.execute("update mill.task set state = 'discarded' where wat_id = 1")
    db.admin.execute("update mill.task set state = 'done' where wat_id = 2")
    db.extract([f"http://h{i}.example/{i}.jpg" for i in range(3)], "c.wat.gz")

    def found() -> dict[str, int]:
        return release.rehearse(db.admin, recipe())[1]

    pairs = {"pairs_not_downloaded": 3}
    assert found() == {"open_batches": 1, "pairs_in_open_batches": 3, "given_up": 1, **pairs}
    db.close_batches()
    assert found() == {"downloads": 1, "given_up": 1, **pairs}
    with pytest.raises(
        UserError, match="work is not done: 1 batch to download, 1 task given up or parked;"
    ):
        release.build(db.admin, recipe(), tmp_path / "out", strict=True)
    assert list(tmp_path.iterdir()) == []
    db.download(Outcome.TIMEOUT)
    db.admin.execute("select * from mill.retry_outcomes(null, 0, 9, true)")
    assert found() == {"retries": 1, "given_up": 1}
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes_of(range(3), [bytes(32)] * 3))
    queue.complete(claim.lease_id)
    assert found() == {"retries": 1, "submissions": 1, "given_up": 1}
    db.accept_all()
    assert found() == {"scorings": 1, "given_up": 1, "pairs_not_scored": 3}
    db.score()
    assert found() == {"given_up": 1}
    # what was given up waits for an admin and for no worker
    manifest = release.build(db.admin, recipe(), tmp_path / "out", strict=True)
    assert manifest.unfinished == {"given_up": 1}
    assert "Not done when it was built: 1 task given up or parked." in readme(tmp_path / "out")
    db.add_wat("another.wat.gz")
    assert found() == {"wat_files": 1, "given_up": 1}


def test_the_commands(scored: Database, tmp_path: Path) -> None:
    line = Line(scored.dsn, tmp_path / "home")
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nversion = 2\ndescription = "d"\nlicence = "CC0-1.0"\nmodel = "model-d1"\nmin_similarity = 0.3\n'
    )
    build = ("release", "build", str(file))
    assert sentence(line.here("release", "forget", "mine")).endswith("recorded are: none")
    assert "no release is recorded" in line.pairmill("release", "list")
    planned = json.loads(line.pairmill(*build, "--dry-run", "--json"))
    assert planned == {
        "candidates": 12, "kept": 4, "kept_by_language": {"de": 1, "en": 2, "nolang": 1},
        "excluded": {"download_failed": 6, "similarity": 2}, "unfinished": {}, "dry_run": True,
    }  # fmt: skip
    said = line.pairmill(*build, "--dry-run")
    assert "4 of 12 pairs would be kept" in said
    assert "download_failed" in said
    assert not (tmp_path / "out").exists()
    for wrong in ((), ("--dry-run", "--out", "x")):
        assert line.here(*build, *wrong).returncode == 2

    scored.add_wat("later.wat.gz")
    assert line.here(*build, "--dry-run", "--strict").returncode == 1
    done = line.here(*build, "--out", str(tmp_path / "out"))
    assert done.stdout == f"4 of 12 pairs kept, in {tmp_path / 'out'}\n"
    assert done.stderr.strip() == "not done yet: 1 WAT file to extract"
    publisher = ("--creator", "A Society", "--date-published", "2026-11-27")
    line.pairmill(*build, "--out", str(tmp_path / "unrecorded"), "--no-record", *publisher)
    assert json.loads(manifest_text(tmp_path / "unrecorded"))["published"] == {
        "creator": "A Society", "date_published": "2026-11-27",
    }  # fmt: skip
    assert line.here(*build, "--out", "x", "--date-published", "today").returncode == 1
    (row,) = json.loads(line.pairmill("release", "list", "--json"))
    assert (row["name"], row["version"], row["kept"]) == ("mine", 2, 4)
    assert row["unfinished"] == {"wat_files": 1}
    assert "1 WAT file to extract" in line.pairmill("release", "list")
    told = json.loads(line.pairmill("release", "why", URLS[1], "--release", "mine", "--json"))
    assert told["releases"][0]["decision"] == "similarity"
    said = line.pairmill(
        "release", "why", URLS[1], "--recipe", str(file), "--set", "min_similarity=0.1"
    )
    assert "recipe mine, version 2, today: kept: similarity 0.2999 ≥ 0.1" in said
    assert line.here("release", "why", URLS[1], "--set", "min_similarity=0.1").returncode == 2

    assert "record 1: mine, version 2" in line.pairmill("release", "forget", "mine", "--dry-run")
    assert "not confirmed" in line.here("release", "forget", "1").stderr
    assert scored.value("select count(*) from mill.release_batch") == 1
    assert "1 record deleted" in line.pairmill("release", "forget", "mine", "--yes")
    assert scored.value("select count(*) from mill.release_batch") == 0

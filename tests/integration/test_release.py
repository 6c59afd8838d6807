"""Releases and removals: what is kept, in which bytes, and why the rest is not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mmh3
import psycopg
import pyarrow.parquet as pq
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.errors import UserError
from pairmill.ops.release import release
from pairmill.ops.release.check import check
from pairmill.ops.release.folder import manifest_text, readme
from support.database import Database, key
from support.released import URLS, add_scored_pairs, recipe


@pytest.fixture
def scored(db: Database) -> Database:
    """12 pairs: six downloaded and scored, three dead, three that did not answer."""
    return add_scored_pairs(db)


def built(db: Database, out: Path, **values: Any) -> tuple[release.Manifest, list[dict[str, Any]]]:
    manifest = release.build(db.admin, recipe(**values), out)
    assert [fault.sentence() for fault in check(out).faults] == []
    return manifest, pq.read_table([out / f["name"] for f in manifest.files]).to_pylist()


def urls(rows: list[dict[str, Any]]) -> set[str]:
    return {row["URL"] for row in rows}


def test_thresholds_are_inclusive_and_every_pair_has_one_reason(
    scored: Database, tmp_path: Path
) -> None:
    manifest, rows = built(scored, tmp_path / "out")
    assert urls(rows) == {URLS[0], URLS[2]}
    assert manifest.candidates == 12
    assert manifest.excluded == {"download_failed": 6, "language": 3, "similarity": 1}
    assert manifest.kept + sum(manifest.excluded.values()) == manifest.candidates
    assert manifest.kept_by_language == {"en": 2}


def test_rows_are_what_the_columns_say(scored: Database, tmp_path: Path) -> None:
    _, rows = built(scored, tmp_path / "out")
    (row,) = [r for r in rows if r["URL"] == URLS[0]]
    batch, n = scored.rows("select batch_id, n from mill.pair where url = %s", URLS[0])[0]
    assert row == {
        "SAMPLE_ID": batch * 16384 + n, "URL": URLS[0], "TEXT": "text number 0",
        "HEIGHT": 480, "WIDTH": 640, "LICENSE": None, "LANGUAGE": "en", "NSFW": None,
        "similarity": 0.3,  # and not float32's 0.30000001…
        "hash": mmh3.hash64(URLS[0] + "text number 0")[0],
        "md5": hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest(),
        "punsafe": None, "pwatermark": None, "aesthetic": None,
    }  # fmt: skip
    assert list(row) == release.SCHEMA.names


def test_thresholds_by_language(scored: Database, tmp_path: Path) -> None:
    values = {
        "languages": ["en", "de", "nolang"],
        "min_similarity_by_language": {"de": 0.26, "nolang": 0.41},
    }
    manifest, rows = built(scored, tmp_path / "out", **values)
    assert urls(rows) == {URLS[0], URLS[2], URLS[3], URLS[4]}
    assert manifest.kept_by_language == {"de": 2, "en": 2}


def test_a_recipe_takes_the_languages_of_the_detectors_that_it_names(
    scored: Database, tmp_path: Path
) -> None:
    """Would catch pairs of another detector under a recipe's languages, and a view, or a
    manifest, that does not tell of which."""
    scored.admin.execute("update mill.wat_file set language_detector = 'fasttext'")
    manifest, _ = built(scored, tmp_path / "laion", language_detectors=["cld3"])
    assert manifest.excluded == {"download_failed": 6, "language_detector": 6}
    assert manifest.recipe["language_detectors"] == ["cld3"]
    for name, taken in (("any", []), ("both", ["cld3", "fasttext"])):
        manifest, _ = built(scored, tmp_path / name, language_detectors=taken)
        assert manifest.excluded == {"download_failed": 6, "language": 3, "similarity": 1}
    shown = "select distinct language_detector from report.sample where batch_id between 0 and 99"
    assert scored.rows(shown) == [("fasttext",)]


def test_text_length_and_bytes(scored: Database, tmp_path: Path) -> None:
    manifest, _ = built(scored, tmp_path / "a", min_bytes=6001)
    assert manifest.excluded["too_few_bytes"] == 3
    manifest, _ = built(scored, tmp_path / "b", min_bytes=6000, min_text_length=14)
    assert manifest.excluded["text_too_short"] == 3


def test_text_length_by_script(scored: Database, tmp_path: Path) -> None:
    """Faults: a Latin minimum for Chinese; a recipe's own choice that LAION's recipes get too."""
    scored.admin.execute("update mill.pair set text = '写真' where url = %s", (URLS[0],))
    scored.admin.execute("update mill.pair set text = '写' where url = %s", (URLS[2],))
    values: dict[str, Any] = {"min_similarity": -1, "languages": []}
    for name, text_length, dropped in (("a", "characters", {0, 2}), ("b", "by_script", {2})):
        manifest, rows = built(scored, tmp_path / name, text_length=text_length, **values)
        assert {URLS[0], URLS[2]} - urls(rows) == {URLS[i] for i in dropped}
        assert manifest.excluded["text_too_short"] == len(dropped)


def test_same_state_same_bytes(scored: Database, tmp_path: Path) -> None:
    for name in "ab":
        built(scored, tmp_path / name, languages=[])
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["_release.parquet", "part-00000.parquet"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_shards_are_in_order_and_the_manifest_has_their_sums(
    scored: Database, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done: list[tuple[int, int]] = []
    manifest = release.build(
        scored.admin, recipe(languages=[], min_similarity=-1.0), out,
        progress=lambda *state: done.append(state), shard_rows=4,
    )  # fmt: skip
    assert [f["rows"] for f in manifest.files] == [4, 2]
    assert done == [(4, 6), (6, 6)]
    ids = []
    for file in json.loads(manifest_text(out))["files"]:
        body = (out / file["name"]).read_bytes()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (file["sha256"], file["bytes"])
        ids += pq.read_table(out / file["name"])["SAMPLE_ID"].to_pylist()
    assert ids == sorted(ids)
    text = readme(out)
    assert "6 of 12 pairs" in text
    assert manifest.removals["hmac"] in text


def test_nothing_kept_is_still_a_release(scored: Database, tmp_path: Path) -> None:
    manifest = release.build(scored.admin, recipe(languages=["xx"]), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert (manifest.kept, table.num_rows, table.schema) == (0, 0, release.SCHEMA)


@pytest.mark.parametrize("by", ["url", "url with fragment", "md5 of url", "md5", "sha256"])
def test_removals_are_applied(scored: Database, tmp_path: Path, by: str) -> None:
    n = scored.value("select n from mill.pair where url = %s", URLS[0])
    entry = {
        "url": URLS[0],
        "url with fragment": URLS[0] + "#top",
        "md5 of url": key(URLS[0]).hex,
        "md5": key(str(n)).hex.upper(),
        "sha256": hashlib.sha256(str(n).encode()).hexdigest(),
    }[by]
    report = removal.add(scored.admin, [entry], "asked for", True)
    assert (report.added, report.known, report.matching_pairs) == (1, 0, 1)
    assert scored.value("select count(*) from mill.removal") == 0  # a dry run
    report = removal.add(scored.admin, [entry], "asked for", False)
    again = removal.add(scored.admin, [entry], "", False)
    assert (again.added, again.known, again.matching_pairs) == (0, 1, 1)
    manifest, rows = built(scored, tmp_path / "out")
    assert urls(rows) == {URLS[2]}
    assert manifest.excluded["removed"] == 1
    assert manifest.removals["entries"] == "under 100"
    hidden = "select n, url, text, md5 from report.pair where removed"
    assert scored.rows(hidden) == [
        (scored.value("select n from mill.pair where url = %s", URLS[0]), *(None,) * 3)
    ]


def test_removal_files(scored: Database, tmp_path: Path) -> None:
    file = tmp_path / "removals.txt"
    file.write_text(f"# a comment\n\n{URLS[0]}\n  {'ab' * 16}  \n{'cd' * 32}\n{URLS[0]}\n")
    report = removal.add(scored.admin, removal.read_entries(file), "", False)
    assert (report.added, report.matching_pairs) == (3, 1)
    file.write_text(f"{URLS[1]}\nftp://a/\n")
    with pytest.raises(UserError, match=r"line 2: 'ftp://a/' is no http"):
        removal.read_entries(file)


def test_withdrawn_rows_are_not_released(scored: Database, tmp_path: Path) -> None:
    number = scored.value("select submission_id from mill.download where outcome = 0 limit 1")
    scored.admin.execute("select mill.withdraw(%s, 'it lied')", (number,))
    manifest, rows = built(scored, tmp_path / "out")
    assert rows == []
    assert manifest.excluded == {"download_failed": 6, "not_downloaded": 6}


def test_folder_with_something_in_it_is_refused(scored: Database, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        release.build(scored.admin, recipe(), tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_unknown_model_names_those_there_are(scored: Database, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model ViT-B-32 openai; it has: model-d1"):
        release.build(scored.admin, recipe(model="ViT-B-32", pretrained="openai"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_build_leaves_nothing(scored: Database, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.build(scored.admin, recipe(), tmp_path / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert scored.admin.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# ---- taggers, and a model for other languages ---------------------------------------------------


def tag(db: Database, digest: str, values: dict[str, tuple[float | None, int | None]]) -> None:
    """A tagger's own task: by URL the value and the label."""
    claim = db.claim("score", digest=digest)
    assert claim
    queue, _ = db.queue("score")
    model = db.value("select model_id from mill.model where digest = %s", digest)
    urls_by_n = dict(db.rows("select n, url from mill.pair"))
    found = [n for n, _ in queue.embeddings(claim.lease_id, 0, 100)]
    rows = [(n, *values.get(urls_by_n[n], (0.5, None))) for n in found]
    queue.copy_tags([(claim.lease_id, 0, model, n, label, value) for n, value, label in rows])
    queue.submit_score(claim.lease_id, 0, 0, len(rows))
    queue.complete(claim.lease_id)
    db.accept_all()


def test_tags_are_columns_and_thresholds(scored: Database, tmp_path: Path) -> None:
    db = scored
    db.add_tagger(digest="a1")
    tag(db, "a1", {URLS[0]: (4.5, None), URLS[1]: (4.4, None), URLS[2]: (None, None)})
    db.add_tagger(kind="zero-shot", digest="z1", labels=["UNLIKELY", "NSFW"])
    tag(db, "z1", dict.fromkeys(URLS, (0.9, 1)))
    tags = {"aesthetic": "tagger-a1", "NSFW": "tagger-z1", "p": "tagger-z1"}
    values = {"tags": tags, "min_similarity": 0.0}
    manifest, rows = built(db, tmp_path / "all", **values)
    by_url = {row["URL"]: (row["aesthetic"], row["NSFW"], row["p"]) for row in rows}
    assert by_url == {
        URLS[0]: (4.5, "NSFW", pytest.approx(0.9)),
        URLS[1]: (pytest.approx(4.4), "NSFW", pytest.approx(0.9)),
        URLS[2]: (None, "NSFW", pytest.approx(0.9)),
    }
    assert list(manifest.columns)[-4:] == ["punsafe", "pwatermark", "aesthetic", "p"]
    assert {c: t["digest"] for c, t in manifest.taggers.items()} == {
        "aesthetic": "a1", "NSFW": "z1", "p": "z1",
    }  # fmt: skip
    assert "`aesthetic`: tagger-a1, weights sha256 `a1`." in readme(tmp_path / "all")

    manifest, rows = built(db, tmp_path / "some", **values, min_tag={"aesthetic": 4.5})
    assert urls(rows) == {URLS[0]}  # thresholds are inclusive
    assert (manifest.excluded["aesthetic"], manifest.excluded["not_tagged"]) == (1, 1)
    manifest, rows = built(db, tmp_path / "none", **values, max_tag={"p": 0.5})
    assert manifest.kept == 0
    assert manifest.excluded["p"] == 3


def test_another_model_scores_other_languages(scored: Database, tmp_path: Path) -> None:
    db = scored
    db.add_model("d2")
    db.score(similarity=0.125, digest="d2")
    values = {
        "languages": [], "min_similarity": 0.0, "multilingual_model": "model-d2",
    }  # fmt: skip
    manifest, rows = built(db, tmp_path / "out", **values)
    found = {row["URL"]: row["similarity"] for row in rows}
    assert {url: found[url] for url in URLS[3:6]} == dict.fromkeys(URLS[3:6], 0.125)
    assert found[URLS[2]] == 0.5
    assert manifest.multilingual_model is not None
    assert manifest.multilingual_model["digest"] == "d2"
    # thresholds by language, of either model
    by_language = {"min_similarity_by_language": {"de": 0.126}}
    manifest, rows = built(db, tmp_path / "more", **values, **by_language)
    assert urls(rows) == {*URLS[:3], URLS[5]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"tags": {"aesthetic": "no"}}, "no tagger 'no' for aesthetic; it has: tagger-t1"),
        ({"tags": {"NSFW": "tagger-t1"}}, "NSFW is a label, and tagger-t1 gives numbers"),
        ({"multilingual_model": "no"}, "the database has no model no; it has: model-d1"),
    ],
)
def test_what_a_recipe_names_and_the_database_lacks(
    scored: Database, tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    scored.add_tagger()
    with pytest.raises(UserError, match=says):
        built(scored, tmp_path / "out", **values)


@pytest.mark.parametrize("bound", [0.45, 0.1, 1e-50, -3])
def test_thresholds_of_tags_are_inclusive_as_they_are_written(
    scored: Database, tmp_path: Path, bound: float
) -> None:
    """A tag is a float32, and 0.45 as such is less than 0.45."""
    db = scored
    db.add_tagger(digest="a1")
    tag(db, "a1", dict.fromkeys(URLS, (bound, None)))
    values = {"tags": {"punsafe": "tagger-a1"}, "min_similarity": 0.0}
    _, low = built(db, tmp_path / "low", **values, min_tag={"punsafe": bound})
    _, high = built(db, tmp_path / "high", **values, max_tag={"punsafe": bound})
    assert urls(low) == urls(high) == set(URLS[:3])

"""The passes of a release meet a database: in the archive or live, the bytes are the same; what is removed
or withdrawn while a build runs is not in it; a build that is cut off goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pairmill.ops.admin import removal
from pairmill.ops.archive import catalogue, generations
from pairmill.ops.archive.detach import detach
from pairmill.ops.archive.export import export
from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.release import release, why
from pairmill.ops.release.engine import DuckDb
from pairmill.ops.release.work import LOCK
from support.database import Database, say_migrated
from support.released import URLS, add_scored_pairs, recipe

RESULTS = ("pair", "download", "score", "tag", "embedding")


@pytest.fixture
def scored(db: Database) -> Database:
    say_migrated(db.admin)
    return add_scored_pairs(db)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def archived(db: Database, folder: Path) -> list[Facts]:
    with db.admin.transaction():
        return [export(db.admin, folder, 0, 999)]


def test_same_bytes_live_archived_and_detached(
    scored: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a value that is another in the archive, and rows of both places at once."""
    values: dict[str, Any] = {"languages": [], "min_similarity": 0.0}
    release.build(scored.admin, recipe(**values), tmp_path / "live")
    facts = archived(scored, tmp_path / "facts")
    monkeypatch.setattr(catalogue, "current", lambda connection: facts)
    release.build(scored.admin, recipe(**values), tmp_path / "archived")
    for table in RESULTS:
        scored.admin.execute(f"truncate mill.{table}")
    release.build(scored.admin, recipe(**values), tmp_path / "detached")
    live = files_of(tmp_path / "live")
    assert live == files_of(tmp_path / "archived") == files_of(tmp_path / "detached")
    assert len(live) == 2
    records = scored.rows("select distinct candidates, kept, manifest_sha256 from mill.release")
    assert len(records) == 1
    assert records[0][:2] == (12, 6)
    same = scored.rows("select decisions from mill.release_batch")
    assert len(same) == 3
    assert len(set(same)) == 1


def in_archive(db: Database, root: Path) -> catalogue.Partition:
    """The partition of all pairs, archived."""
    db.admin.execute("select mill.ensure_partitions(1000)")
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, closed_at) overriding system value"
        " values (1000, 0, now())"
    )
    chosen = generations.to_archive(db.admin, 0, 999, partial=False)
    (written,) = generations.archive(db.admin, chosen, str(root))
    return written


@pytest.mark.parametrize("table", ["pair", "download", "score"])
def test_a_lost_file_of_the_archive_is_no_table_without_rows(
    scored: Database, tmp_path: Path, table: str
) -> None:
    """Would catch: a release without the pairs of a partition, or with none of them scored, since a
    file was lost, or pruned while the release was built: its counts all agree."""
    written = in_archive(scored, tmp_path / "archive")
    lost = Path(written.facts().path(table, 1 if table == "score" else None))
    lost.unlink()
    with pytest.raises(UserError, match=lost.name):
        release.build(scored.admin, recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def during(stage: str, act: Any) -> release.How:
    """A build in which something happens at the end of a pass."""
    done: list[str] = []

    def stages(name: str, at: int, total: int) -> None:
        if name == stage and at == total and not done:
            done.append(name)
            act()

    return release.How(stages=stages)


def test_what_is_removed_or_withdrawn_meanwhile_is_not_in_it(
    scored: Database, tmp_path: Path
) -> None:
    """Would catch: a release of hours that has what was removed in its first minute."""
    with psycopg.connect(scored.dsn, autocommit=True) as other:
        how = during("filters", lambda: removal.add(other, [URLS[0]], "", False))
        manifest = release.build(scored.admin, recipe(), tmp_path / "removed", how=how)
        assert manifest.excluded["removed"] == 1
        assert manifest.kept == 1
        number = scored.value("select submission_id from mill.score where similarity = 0.5")
        how = during("filters", lambda: other.execute("select mill.withdraw(%s, 'x')", (number,)))
        manifest = release.build(scored.admin, recipe(), tmp_path / "withdrawn", how=how)
    assert manifest.excluded["withdrawn"] == 1
    assert manifest.kept == 0
    assert manifest.candidates == manifest.kept + sum(manifest.excluded.values())


def test_a_build_that_was_cut_off_goes_on(
    scored: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: hours that are done twice; and a pass that is taken for done of another state
    or recipe."""
    work, copies, copy = tmp_path / "work", [], DuckDb.copy

    def counted(self: DuckDb, query: str, *others: Any, **more: Any) -> None:
        copies.append(query)
        copy(self, query, *others, **more)

    monkeypatch.setattr(DuckDb, "copy", counted)

    def cut_off(done: int, total: int) -> None:
        raise KeyboardInterrupt

    how = release.How(work=work)
    with pytest.raises(KeyboardInterrupt):
        release.build(scored.admin, recipe(), tmp_path / "out", how=how, progress=cut_off)
    assert work.is_dir()
    assert not (tmp_path / "out").exists()
    once = len(copies)
    assert once == 2
    release.rehearse(scored.admin, recipe(), how)
    assert len(copies) == once
    other, _ = release.rehearse(scored.admin, recipe(languages=["de"]), how)
    assert len(copies) == 2 * once
    assert other.kept == 1
    scored.add_wat("b.wat.gz")
    number = scored.value("select submission_id from mill.score where similarity = 0.5")
    scored.admin.execute("select mill.withdraw(%s, 'wrong')", (number,))
    manifest = release.build(scored.admin, recipe(), tmp_path / "out", how=how)
    assert manifest.excluded["not_scored"] == 1
    assert not work.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(UserError, match="holds other files"):
        release.build(
            scored.admin, recipe(), tmp_path / "x", how=release.How(work=tmp_path / "mine")
        )
    assert (tmp_path / "mine" / "precious").exists()


@pytest.mark.parametrize("named", [True, False])
def test_two_builds_do_not_share_a_folder(scored: Database, tmp_path: Path, *, named: bool) -> None:
    """Would catch: a second build of the same release that deletes the first one's facts, which
    then has no pairs; what a killed build left, in the way of the next."""
    how = release.How(work=tmp_path / "work" if named else None)
    said: list[str] = []

    def second(stage: str, at: int, total: int) -> None:
        if stage == "filters" and not said:
            with psycopg.connect(scored.dsn, autocommit=True) as other:
                with pytest.raises(UserError, match="another build is at work in") as error:
                    release.build(other, recipe(languages=["de"]), tmp_path / "out", how=how)
                said.append(str(error.value))

    left = tmp_path / ".out.work" / "live"
    left.mkdir(parents=True)
    (left.parent / LOCK).touch()
    first = replace(how, stages=second)
    assert release.build(scored.admin, recipe(), tmp_path / "out", how=first).kept == 2
    assert said
    assert named or not left.parent.exists()


def test_why_names_the_row_that_a_duplicate_repeats(scored: Database, tmp_path: Path) -> None:
    """Would catch: a duplicate without the other, which is all that a contributor asks for."""
    db = scored
    samples = dict(db.rows("select url, mill.sample_id(batch_id, n) from mill.pair"))
    first, second = sorted((URLS[0], URLS[2]), key=lambda url: samples[url])
    db.admin.execute(
        "update mill.download set sha256 = '\\x01', md5 = repeat('0', 32)::uuid from mill.pair p"
        " where p.batch_id = download.batch_id and p.n = download.n and p.url = any (%s)",
        ([first, second],),
    )
    dedupe = {"exact": ["bytes"]}
    manifest = release.build(db.admin, recipe(dedupe=_spec(dedupe)), tmp_path / "out")
    assert (manifest.kept, manifest.excluded["duplicate"]) == (1, 1)
    assert [found["method"] for found in manifest.duplicates] == ["bytes"]
    (row,) = why.ask(db.admin, second)["releases"]
    assert (row["decision"], row["duplicate_of"]) == ("duplicate", samples[first])
    assert row["because"] == f"duplicate of SAMPLE_ID {samples[first]}, {first}, by bytes"
    (row,) = why.ask(db.admin, first)["releases"]
    assert row["decision"] == "kept"
    # the one that was removed takes the other along, whichever stayed
    removal.add(db.admin, [second], "asked", False)
    manifest = release.build(db.admin, recipe(dedupe=_spec(dedupe)), tmp_path / "next")
    assert (manifest.kept, manifest.excluded["removed"]) == (0, 2)


def test_why_tells_no_change_where_a_build_looked_at_all_rows(
    scored: Database, tmp_path: Path
) -> None:
    """Would catch: a pair below the fraction of the pool, or one that repeats a removed image, said
    to have changed since, and to be kept today; a pair that is detached, said not to be."""
    db = scored
    values: dict[str, Any] = {"languages": [], "min_similarity": None, "top_fraction": 0.4}
    assert release.build(db.admin, recipe(**values), tmp_path / "top").kept == 3
    (row,) = why.ask(db.admin, URLS[0])["releases"]
    assert (row["decision"], row["today"]) == ("top_fraction", None)
    assert row["because"] == why.AMONG_ALL["top_fraction"]
    (row,) = why.ask(db.admin, URLS[0], recipe=recipe(**values))["releases"]
    assert (row["today"], row["because"]) == ("kept", f"similarity 0.3000; {why.UNTOLD}")
    db.admin.execute(
        "update mill.download set md5 = repeat('0', 32)::uuid from mill.pair p"
        " where p.batch_id = download.batch_id and p.n = download.n and p.url = any (%s)",
        (URLS[2:4],),
    )
    removal.add(db.admin, [URLS[2]], "asked", False)
    release.build(db.admin, recipe(languages=[]), tmp_path / "twin")
    row = why.ask(db.admin, URLS[3])["releases"][-1]
    assert (row["decision"], row["today"]) == ("removed", None)
    assert row["because"] == why.AMONG_ALL["removed"]
    in_archive(db, tmp_path / "archive")
    detach(db.admin, catalogue.partitions(db.admin, 0, 0)[0])
    with pytest.raises(UserError, match="`pairmill archive restore 0-999` brings them back"):
        why.ask(db.admin, URLS[0])


def _spec(values: dict[str, Any]) -> Any:
    import msgspec

    from pairmill.ops.dedupe.spec import Dedupe

    return msgspec.convert(values, Dedupe)

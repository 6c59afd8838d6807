"""A release from made-up facts: the same however the facts are parted; and what cannot be is no release."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.release.decisions import duplicate_of
from pairmill.ops.release.engine import failures
from pairmill.ops.release.state import Removed
from support.built_release import EVERYTHING, build_release, selection_of, some_facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return some_facts(tmp_path_factory.mktemp("facts"))


def test_facts_may_be_parted_anyhow(facts: Facts, tmp_path: Path) -> None:
    """Would catch: a file's end, a row group or a dictionary that depends on where the rows lay."""
    halves = []
    for first, last in ((1, 3), (4, 8)):
        folder = tmp_path / f"of{first}"
        folder.mkdir()
        for name in ("pair", "download", "score-1", "tag-7"):
            table = pq.read_table(Path(facts.folder) / f"{name}.parquet")
            low, high = first << 14, (last + 1 << 14) - 1
            ids = table["sample_id"].to_numpy()
            pq.write_table(table.filter(pa.array((ids >= low) & (ids <= high))),
                           folder / f"{name}.parquet", row_group_size=333)  # fmt: skip
        halves.append(Facts(str(folder), first, last))
    chosen = selection_of("laion-400m", (7,), **EVERYTHING)
    _, files, recorded = build_release(chosen, [facts], tmp_path / "one")
    _, same_files, same = build_release(chosen, halves, tmp_path / "two")
    assert len(files) > 0
    assert (files, recorded) == (same_files, same)


@pytest.mark.parametrize("fraction", [0.3, 0.001, 1.0, 1e-9])
def test_top_fraction_is_of_the_pool_with_its_ties(
    facts: Facts, tmp_path: Path, fraction: float
) -> None:
    """Would catch: a fraction of what other filters left, a tie that is cut, an estimate."""
    score = Path(facts.folder) / "score-1.parquet"
    values = np.sort(pq.read_table(score)["similarity"].to_numpy())[::-1]
    expected = values[min(int(len(values) * fraction), len(values) - 1)]
    chosen = selection_of("laion-400m", min_similarity=-1.0, top_fraction=fraction)
    made, _, _ = build_release(chosen, [facts], tmp_path)
    assert np.float32(made.thresholds["top_fraction"]) == expected
    below = made.decisions.excluded["top_fraction"] + made.decisions.kept
    assert below <= len(values)
    tied = tmp_path / "tied"
    tied.mkdir()
    for name in ("pair", "download"):
        (tied / f"{name}.parquet").symlink_to(Path(facts.folder) / f"{name}.parquet")
    table = pq.read_table(score)
    flat = pa.array(np.full(len(table), 0.25, np.float32))
    at = table.schema.get_field_index("similarity")
    pq.write_table(table.set_column(at, "similarity", flat), tied / "score-1.parquet")
    same = Facts(str(tied), facts.first, facts.last)
    made, _, _ = build_release(chosen, [same], tmp_path / "of-ties")
    assert made.decisions.excluded["top_fraction"] == 0


def planted(facts: Facts, kind: str) -> dict[int, int]:
    query = f"select sample_id, of from '{facts.folder}/planted.parquet' where kind = '{kind}'"
    return dict(duckdb.connect().execute(query).fetchall())


OPEN: dict[str, Any] = {
    "min_similarity": -1.0, "languages": [], "min_bytes": 0, "min_text_length": 0,
    "dedupe": {"exact": ["url", "bytes"]},
}  # fmt: skip


def test_a_duplicate_names_the_row_that_stays(facts: Facts, tmp_path: Path) -> None:
    """Would catch: a duplicate that stays, both that go, and a record that names another row."""
    made, _, recorded = build_release(selection_of("laion-400m", **OPEN), [facts], tmp_path)
    words, found = made.decisions.words, {}
    for batch in recorded:
        for n, code in enumerate(batch.decisions):
            if code and words[code - 1] == "duplicate":
                assert batch.duplicates is not None
                found[batch.batch_id << 14 | n] = duplicate_of(batch.duplicates, n)
    assert len(found) == made.decisions.excluded["duplicate"] > 100
    named = {sample: told[0] for sample, told in found.items() if told}
    assert len(named) == len(found)
    both = planted(facts, "bytes") | planted(facts, "url")
    assert set(found) <= set(both)
    assert made.decisions.methods
    # of a row that several repeat, all name the one that stays
    assert not set(named.values()) & set(named)
    assert all(both[sample] == other for sample, other in named.items())


def test_what_repeats_a_removed_row_goes_too(facts: Facts, tmp_path: Path) -> None:
    """Would catch: a removed image that stays under another URL, the more so where the removed row
    itself is left out by another condition, or the recipe asks for no dedupe."""
    download = pq.read_table(Path(facts.folder) / "download.parquet",
                             filters=[("counts", "=", True), ("outcome", "=", 0)])  # fmt: skip
    images = set(download["sample_id"].to_pylist())
    same = {s: of for s, of in planted(facts, "bytes").items() if {s, of} <= images}
    copy, original = min(same.items())
    # the removed one is too small for the recipe
    sizes = dict(zip(download["sample_id"].to_pylist(), download["bytes"].to_pylist(), strict=True))
    least = min(sizes[copy], sizes[original] + 1)
    removed = Removed(np.array([original]), [], [], [])
    for name, dedupe in (("plain", None), ("deduped", OPEN["dedupe"])):
        values = OPEN | {"min_bytes": least, "dedupe": dedupe}
        chosen = selection_of("laion-400m", **{k: v for k, v in values.items() if v is not None})
        made, _, recorded = build_release(chosen, [facts], tmp_path / name, removed=removed)
        by_batch = {each.batch_id: each.decisions for each in recorded}
        for sample in (copy, original):
            code = by_batch[sample >> 14][sample & 16383]
            assert made.decisions.words[code - 1] == "removed", (name, sample == copy)


def twice(folder: Path) -> None:
    table = pq.read_table(folder / "score-1.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(5, 1)]), folder / "score-1.parquet")


def cut(folder: Path) -> None:
    body = (folder / "download.parquet").read_bytes()
    (folder / "download.parquet").write_bytes(body[: len(body) // 2])


def absent(folder: Path) -> None:
    table = pq.read_table(folder / "pair.parquet").drop_columns(["language"])
    pq.write_table(table, folder / "pair.parquet")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (twice, "4,001 candidates are not"),
        (cut, "cannot be read or written"),
        (absent, "cannot be read or written"),
    ],
)
def test_damaged_facts_are_no_release(facts: Facts, tmp_path: Path, damage: Any, says: str) -> None:
    folder = tmp_path / "facts"
    folder.mkdir()
    for path in Path(facts.folder).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    damage(folder)
    with pytest.raises(UserError, match=says):
        build_release(
            selection_of("laion-400m"),
            [Facts(str(folder), facts.first, facts.last)],
            tmp_path / "w",
        )


@pytest.mark.parametrize("name", ["decided", "kept"])
def test_a_half_written_part_of_a_cut_off_build_is_a_sentence(
    facts: Facts, tmp_path: Path, name: str
) -> None:
    """Would catch: a traceback, or a part taken for whole, after a crash of the machine."""
    chosen = selection_of("laion-400m")
    build_release(chosen, [facts], tmp_path)
    (tmp_path / "out").rename(tmp_path / "first")
    (part,) = (tmp_path / "parts").glob(f"*/{name}-*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read or written"):
        build_release(chosen, [facts], tmp_path)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), "the disk is full: make room"),
        (duckdb.IOException("Could not write: No space left on device"), "the disk is full"),
        (duckdb.OutOfMemoryException("failed to allocate"), "give more by --memory"),
    ],
)
def test_a_full_disk_is_a_sentence(error: Exception, says: str) -> None:
    with pytest.raises(UserError, match=says), failures("x"):
        raise error

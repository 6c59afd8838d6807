"""Cover rows against somebody who has two versions of a release, their manifests and a list of URLs.

The bound that is stated (docs/decisions/2026-11-27-cover-rows.md): of what the later version lacks, at
most 1 in 1 + covers was removed, whatever of punsafe, site, language and size one chooses by.
"""

import hmac
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import cover_draw

KEY = bytes(range(32))
COVERS = 20
BOUND = 1 / (1 + COVERS)
LEAST = 5 * (1 + COVERS)  # rows that a choice has, so that chance alone is no finding
SLACK = 1.6  # of a choice by something that is matched about, and not exactly
ROWS = 30_000


def population(rows: int = ROWS, seed: int = 3) -> pa.Table:
    """Rows as a crawl has them: a few large sites and thousands of small ones, each of mostly one
    language; most punsafe near 0, and of a few sites near 1."""
    r = np.random.default_rng(seed)
    site = np.minimum(r.zipf(1.35, rows), 6 * rows) % 9973
    words = np.array(["en", "de", "fr", "sw", None], object)
    mother = words[r.choice(5, 9973, p=[0.6, 0.2, 0.1, 0.01, 0.09])]
    language = np.where(r.random(rows) < 0.9, mother[site], "en")
    bad = r.random(9973) < 0.15
    punsafe = np.where(bad[site], r.beta(8, 2, rows), r.beta(0.3, 4, rows)).astype(np.float32)
    ids = 16384 + np.arange(rows)
    return pa.table({
        "SAMPLE_ID": ids, "URL": [f"https://www.s{s}.example/{i}.jpg" for s, i in zip(site, ids, strict=True)],
        "LANGUAGE": pa.array(language.tolist(), pa.string()),
        "WIDTH": r.choice([100, 300, 700, 1500], rows).astype(np.int32),
        "HEIGHT": r.choice([100, 300, 700, 1500], rows).astype(np.int32),
        "punsafe": punsafe,
    })  # fmt: skip


@dataclass
class Released:
    """What everybody sees of a release: SAMPLE_ID, site, language, size and punsafe of each row."""

    ids: npt.NDArray[np.int64]
    cells: dict[str, npt.NDArray[np.object_]]


@contextmanager
def opened(folder: Path, table: pa.Table, gone: list[int]) -> Iterator[duckdb.DuckDBPyConnection]:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "part-00000.parquet")
    with cover_draw.database(folder / "work", "1GB") as db:
        cover_draw.read_rows(db, [folder / "part-00000.parquet"])
        cover_draw.fill(db, "gone", ((each,) for each in gone))
        db.execute("create table withdrawn (sample_id bigint)")
        yield db


def seen(db: duckdb.DuckDBPyConnection) -> Released:
    found = db.execute("select * from old_row order by sample_id").fetchnumpy()
    sizes = Counter(found["site"].tolist())
    cells = {name: np.array(found[name], object) for name in ("language", "size", "punsafe")}
    cells["magnitude"] = np.array([sizes[s].bit_length() for s in found["site"].tolist()], object)
    cells["site"] = np.array(found["site"], object)
    return Released(np.asarray(found["sample_id"]), cells)


def removals(table: pa.Table) -> list[int]:
    """70 of those that are asked for: unsafe ones, a rare language, a whole site, and images of sites
    that have one, two or three."""
    r = np.random.default_rng(11)
    ids = table["SAMPLE_ID"].to_numpy()
    punsafe, language = table["punsafe"].to_numpy(), np.array(table["LANGUAGE"].to_pylist(), object)
    site = np.array([url.split("/")[2] for url in table["URL"].to_pylist()], object)
    size = Counter(site.tolist())
    whole = next(s for s, n in sorted(size.items()) if n == 16)
    small = [s for s, n in sorted(size.items()) if n <= 3][:200:20]
    return sorted({
        *r.choice(ids[punsafe > 0.8], 30, replace=False).tolist(),
        *r.choice(ids[language == "sw"], 4, replace=False).tolist(),
        *ids[site == whole].tolist(), *ids[np.isin(site, small)].tolist(),
    })  # fmt: skip


Score = Callable[[Released, npt.NDArray[np.bool_]], npt.NDArray[np.float64]]


def enriched(*names: str) -> Score:
    """The share of each row's cell that is missing: what these columns explain of it."""

    def score(all_rows: Released, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        keys = list(zip(*(all_rows.cells[name].tolist() for name in names), strict=True))
        had, lost = Counter(keys), Counter(k for k, m in zip(keys, missing, strict=True) if m)
        return np.array([lost[key] / had[key] for key in keys])

    return score


def unexplained(all_rows: Released, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The share of its site that is missing, less what language and punsafe explain of that."""
    expected = enriched("language", "punsafe")(all_rows, missing)
    return enriched("site")(all_rows, missing) - expected


CHOICES: dict[str, Score] = {
    "punsafe": enriched("punsafe"), "language": enriched("language"), "size": enriched("size"),
    "all three": enriched("language", "size", "punsafe"),
    "of small sites": enriched("magnitude"), "small and unsafe": enriched("magnitude", "punsafe"),
    "emptied sites": enriched("site"), "unexplained by words and punsafe": unexplained,
}  # fmt: skip


def worst_share(
    all_rows: Released, missing: npt.NDArray[np.bool_], removed: npt.NDArray[np.bool_],
    score: Score, listed: npt.NDArray[np.bool_],
) -> float:  # fmt: skip
    """The largest share of removed rows among the missing ones that are on somebody's list and have
    a score above, or below, any bound; choices of fewer than LEAST rows are no finding."""
    values = score(all_rows, missing)[missing & listed]
    hit = removed[missing & listed]
    shares = []
    for sign in (1, -1):
        order = np.argsort(sign * values, kind="stable")
        ends = np.flatnonzero(np.diff(values[order], append=np.inf))
        ends = ends[ends + 1 >= LEAST]
        shares += (np.cumsum(hit[order])[ends] / (ends + 1)).tolist()
    return max(shares)


def worst(
    table: pa.Table, gone: list[int], covers: list[int], all_rows: Released
) -> dict[str, float]:
    missing = np.isin(all_rows.ids, [*gone, *covers])
    removed = np.isin(all_rows.ids, gone)
    half = np.random.default_rng(5).random(len(all_rows.ids)) < 0.5
    found = {name: worst_share(all_rows, missing, removed, score, np.ones_like(half))
             for name, score in CHOICES.items()}  # fmt: skip
    found["a list of half the URLs"] = worst_share(
        all_rows, missing, removed, enriched("punsafe"), half
    )
    return found


def test_the_removed_rows_are_within_the_bound_and_unmatched_covers_are_not(tmp_path: Path) -> None:
    """Would catch: covers that punsafe, words, size, or an emptied site tell from removed rows. The
    same number of covers drawn from all rows fails it."""
    table = population()
    gone = removals(table)
    with opened(tmp_path, table, gone) as db:
        drawn = cover_draw.draw(db, KEY, COVERS)
        covers = [row[0] for row in db.execute("select sample_id from cover").fetchall()]
        all_rows = seen(db)
    assert len(set(covers)) == len(covers) == drawn.covers >= COVERS * len(gone)
    assert not set(covers) & set(gone)
    found = worst(table, gone, covers, all_rows)
    exact = {"punsafe"}
    assert {
        name for name, share in found.items() if share > BOUND * (1 if name in exact else SLACK)
    } == set()
    chance = np.random.default_rng(7).choice(
        sorted(set(all_rows.ids.tolist()) - set(gone)), len(covers), replace=False
    )
    unmatched = worst(table, gone, chance.tolist(), all_rows)
    assert {name for name, share in unmatched.items() if share > 3 * BOUND} >= {
        "punsafe", "all three", "emptied sites", "small and unsafe",
    }  # fmt: skip


def test_the_draw_is_an_hmac_and_too_few_rows_are_no_draw(tmp_path: Path) -> None:
    """Would catch: a key that is no key of it, a draw that differs from run to run, and fewer covers
    than were asked for without a word."""
    table = population(500)
    ids = table["SAMPLE_ID"].to_pylist()
    found = []
    for again in ("a", "b"):
        with opened(tmp_path / again, table, ids[:2]) as db:
            cover_draw.draw(db, KEY, 3)
            found.append(db.execute("select sample_id from cover order by 1").fetchall())
            ((drawn,),) = db.execute("select prf('cover row 5')").fetchall()
    assert found[0] == found[1]
    assert len(found[0]) >= 6
    assert drawn == int.from_bytes(hmac.new(KEY, b"cover row 5", "sha256").digest()[:8], "big")
    with opened(tmp_path / "c", table, ids[:2]) as db, pytest.raises(UserError, match="--covers"):
        cover_draw.draw(db, KEY, 499)

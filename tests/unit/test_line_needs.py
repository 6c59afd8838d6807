"""The arithmetic of bench/line.py, on a measurement of round numbers."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from line_needs import (
    LEAF_FILL,
    PAGE,
    Assumed,
    Measured,
    Stage,
    assumed,
    crawls,
    needs,
    page_images,
)
from line_print import ROWS, markdown, short, stages, tables

MEASURED = Measured(
    links=1_000,
    wat_bytes=800_000,
    pairs=500,
    images=400,
    scored=400,
    kept=40,
    image=50_000.0,
    thumbnail=8_000.0,
    dims=64,
    young=Stage(1_000, 1.0, client=2.0, server=1.0, wal=500_000, disk=0),
    known=Stage(1_000, 1.0, client=1.0, server=0.5, wal=200_000, disk=0),
    download=Stage(500, 1.0, client=5.0, server=1.0, wal=5_000_000, disk=0),
    score=Stage(400, 1.0, client=4.0, server=0.4, wal=400_000, disk=0),
    release=Stage(500, 1.0, client=1.0, server=0.5, wal=0, disk=0),
    disk={
        "mill.pair": 100_000, "mill.embedding": 120_000, "mill.task": 5_000, "mill.host_file": 50_000,
        "mill.thumbnail": 3_200_000, "inbox.pair": 900_000,
    },
)  # fmt: skip
GIVEN = Assumed(pair_share=0.05, links_a_wat=1_000, wat_mb=100, image_kb=100, dims=64)
LINKS = 1_000_000  # of which 100,000 are not known: 50,000 pairs, 40,000 images


def found(path: str, given: Assumed = GIVEN, links: float = LINKS) -> Any:
    value: Any = needs(MEASURED, given, links, 1_000)
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pairs", 50_000),
        ("images", 40_000),
        ("scored", 40_000),
        ("release_rows", 4_000),
        ("wat_files", 1_000),
        # a link that is known costs what the second extraction took, and not what the first did
        ("core_hours.extract.client", (100_000 * 0.002 + 900_000 * 0.001) / 3600),
        ("core_hours.extract.server", (100_000 * 0.001 + 900_000 * 0.0005) / 3600),
        # by URL and by thumbnail: a failed download is not scored
        ("core_hours.download.client", 500 / 3600),
        ("core_hours.score.client", 400 / 3600),
        ("core_hours.release.server", 50 / 3600),
        ("gpu_hours", 40 / 3600),
        ("wal_gb.extract", 0.23),
        ("wal_gb.download", 0.5),
        ("wal_gb.score", 0.04),
        # no inbox, thumbnail or host's file: they are emptied
        ("disk_gb.pair", 0.01),
        ("disk_gb.embedding", 0.012),
        ("disk_gb.others", 0.0005),
        ("ring_gb", 0.32),
        ("host_file_gb", 0.005),
        ("network_tb.wat_files", 0.1),
        ("network_tb.images", 0.004),
        ("network_tb.thumbnails", 0.00064),
        ("download_days", 50_000 / 5_000 / 86_400),
        ("merge_hours.all_links", 500_000 / 44_000 / 3600),
        ("merge_hours.new_alone", 50_000 / 44_000 / 3600),
    ],
)
def test_each_need_follows_from_its_own_stage_and_count(path: str, expected: float) -> None:
    assert found(path) == pytest.approx(expected)


def test_no_more_links_are_new_than_there_are() -> None:
    """A share above what filters let through would make known links negative."""
    given = dataclasses.replace(GIVEN, pair_share=0.9)
    assert found("pairs", given) == pytest.approx(500_000)
    assert found("core_hours.extract.client", given) == pytest.approx(2_000 / 3600)


def test_thumbnails_never_take_more_than_the_ring_has() -> None:
    assert found("ring_gb", links=1e12) == pytest.approx(8 * 64 * 10_000 * 0.8 * 8_000 / 1e9)


def test_what_hosts_files_say_is_kept_for_a_day() -> None:
    assert found("host_file_gb", links=1e12) == pytest.approx(5_000 * 86_400 * 100 / 1e9)


def test_a_larger_model_adds_its_vectors_to_disk_and_wal() -> None:
    """Embeddings measured with the demo's 64 dimensions would be an eighth of ViT-B-32's."""
    larger = dataclasses.replace(GIVEN, dims=64 + 768)
    for path, overhead in (("disk_gb.embedding", 3353 / 3072), ("wal_gb.score", 3390 / 3072)):
        more = found(path, larger) - found(path)
        assert more == pytest.approx(40_000 * 3_072 * overhead / 1e9)


def test_hours_of_a_card_that_nobody_measured_are_unknown() -> None:
    assert needs(MEASURED, GIVEN, LINKS, None)["gpu_hours"] == "unknown"


@pytest.mark.parametrize(
    ("keys", "known", "expected"),
    [
        (1_000, 0, 0),  # no index, no page
        (10**9, 2_048_000, 10_000 * PAGE * LEAF_FILL),  # every leaf once, and not every key
        (1_000, 2e13, 1_000 * PAGE * LEAF_FILL),  # hardly two keys meet in a leaf
    ],
)
def test_a_leaf_is_logged_whole_once_between_two_checkpoints(
    keys: float, known: float, expected: float
) -> None:
    assert page_images(keys, known) == pytest.approx(expected, rel=1e-3)


def test_the_index_of_a_larger_crawl_costs_more_wal_a_pair() -> None:
    small, large = (found("wal_gb.seen_url", links=n) / n for n in (1e9, 1e11))
    assert 0 < 5 * small < large
    old = dataclasses.replace(GIVEN, known_before=1e10)
    assert found("wal_gb.seen_url", old, 1e9) > 5 * found("wal_gb.seen_url", links=1e9)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("pairs=3", "there is no assumption 'pairs'"),
        ("dims", "dims wants a number"),
        ("dims=many", "dims wants a number"),
        ("dims=nan", "from 0"),
        ("volunteers=-1", "from 0"),
        ("volunteers=0", "cannot be 0"),
        ("kept_share=29", "a share, at most 1"),
    ],
)
def test_an_assumption_that_makes_no_sense_is_refused_with_its_name(given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        assumed(["dims=768", given])


@pytest.mark.parametrize("text", ["", "1e7,", "many", "1e9,-5", "0", "nan", "inf"])
def test_a_crawl_of_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="numbers of links"):
        crawls(text)


def test_assumptions_change_what_they_name() -> None:
    given = assumed(["dims=768", "known_before=0"])
    assert given == dataclasses.replace(Assumed(), dims=768)


def test_a_result_that_went_through_json_is_read_again() -> None:
    """--from computes from a file what the run printed."""
    text = json.dumps(dataclasses.asdict(MEASURED))
    assert Measured.of(json.loads(text)) == MEASURED


def test_the_table_has_a_column_for_each_crawl_and_every_need() -> None:
    columns = [needs(MEASURED, GIVEN, links, None) for links in (1e7, 5e10)]
    lines = markdown(columns).splitlines()
    assert crawls("1e7,5e10") == [column["links"] for column in columns]
    assert lines[0] == "| | 10^7 links | 5·10^10 links |"
    assert [line.count("|") for line in lines] == [4] * (len(ROWS) + 2)
    assert "| GPU-hours | unknown | unknown |" in lines


def test_stages_are_for_a_thousand_pairs_whatever_they_count() -> None:
    """Scoring counts images: a thousand of those are more pairs."""
    row = "| scoring, the demo's model | 400 images | 1 | 8.00 | 0.80 | 800 | 0 |"
    assert stages(MEASURED).splitlines()[5] == row
    assert tables(MEASURED).startswith("mill.thumbnail 6,400, inbox.pair 1,800, ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), ("unknown", "unknown"), (0.00001, "< 0.001"), (0.0123, "0.012"), (9.96, "10"),
        (1.04, "1.0"), (99.6, "100"), (1_234, "1,200"), (996_000, "10^6"), (1e7, "10^7"),
        (7.16e7, "7.2·10^7"), (5e10, "5·10^10"),
    ],
)  # fmt: skip
def test_two_digits_are_kept_of_every_size(value: float | str, text: str) -> None:
    assert short(value) == text

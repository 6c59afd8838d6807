"""The page of releases over real HTTP: filters, pages, exports, damaged folders, hostile input."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import subset
from pairmill.ops.web.explore import row_summaries, working_copy
from pairmill.ops.web.explore.duck import Duck, QueryTooLong
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.listing import Listing, RowPage
from pairmill.ops.web.explore.open_releases import nothing_hidden
from pairmill.ops.web.explore.row_filters import parse
from support.explored import (
    HOSTILE,
    host_of,
    made_release,
    make_explore,
    prepared,
    random_table,
    settings_of,
    words_in,
)
from support.made_releases import rows_of
from support.pages import browsing

CRAFTED = "it's [a] *.parquet' ; attach"


@dataclass
class Explored:
    client: httpx.Client
    settings: ExploreSettings
    rows: list[dict[str, Any]]
    hidden: set[int]
    folder: Path

    def json(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params={**query, "format": "json"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, name: str, **query: Any) -> list[int]:
        """The ids of all pages, in order."""
        found, after = [], ""
        while True:
            page = self.json(f"/r/{name}", **query, limit=200, after=after)
            found += [row["id"] for row in page["rows"]]
            if not (after := page["after"] or ""):
                return found


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    folder = tmp_path_factory.mktemp("releases")
    table = random_table()
    made_release(folder / "whole", table, shard_rows=400)
    made_release(folder / CRAFTED, rows_of([1, 2, 3]))
    made_release(folder / "half", rows_of(list(range(10))))
    (folder / "half" / "part-00001.parquet").unlink()
    made_release(folder / "cut", rows_of(list(range(10))))
    with (folder / "cut" / "part-00000.parquet").open("ab") as file:
        file.write(b"\0")
    made_release(folder / "nameless", rows_of([1, 2]).drop_columns(["SAMPLE_ID"]))
    made_release(folder / "z-twice", rows_of([1, 5, 5, 2]))
    hidden: set[int] = set()
    settings = settings_of([folder], tmp_path_factory.mktemp("work"), hidden)
    for name in ("whole", CRAFTED):
        assert settings.releases.get(name).partial  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working_copy, "COMMON", 4)  # so that other words are in lists
        with pytest.raises(UserError, match=r"rows with the SAMPLE_ID of another.*: 1;"):
            prepared(settings)  # of "z-twice", the last one
    settings.releases.look()
    with browsing(make_explore(settings, rate=None)) as client:
        yield Explored(client, settings, table.to_pylist(), hidden, folder)


def between(low: float | None, high: float | None) -> Any:
    def holds(value: float | None) -> bool:
        known = value is not None and not math.isnan(value)
        return known and (low is None or value >= low) and (high is None or value <= high)  # type: ignore[operator]

    return holds


def aspect(row: dict[str, Any]) -> float | None:
    return row["WIDTH"] / row["HEIGHT"] if row["WIDTH"] and row["HEIGHT"] else None


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda r: True),
    ({"language": "de"}, lambda r: r["LANGUAGE"] == "de"),
    ({"language": ["de", "none"]}, lambda r: r["LANGUAGE"] in ("de", None)),
    ({"nsfw": "NSFW", "max_punsafe": 0.5},
     lambda r: r["NSFW"] == "NSFW" and between(None, 0.5)(r["punsafe"])),
    ({"licence": "none"}, lambda r: r["LICENSE"] is None),
    ({"min_width": 500, "max_height": 900},
     lambda r: between(500, None)(r["WIDTH"]) and between(None, 900)(r["HEIGHT"])),
    ({"min_aspect": 1, "max_aspect": 1.5}, lambda r: between(1, 1.5)(aspect(r))),
    ({"min_similarity": 0.3, "max_similarity": 0.3}, lambda r: r["similarity"] == 0.3),
    ({"min_mood": 0.5}, lambda r: between(0.5, None)(r["mood"])),
    ({"host": "A.example"}, lambda r: host_of(r["URL"]) in ("a.example", "www.a.example")),
    ({"host": "example"}, lambda r: host_of(r["URL"]).endswith(".example")),
    ({"text": "CAT red"}, lambda r: {"cat", "red"} <= words_in(r["TEXT"])),
    ({"text": "猫 straße"}, lambda r: {"猫", "straße"} <= words_in(r["TEXT"])),
    ({"text": "script"}, lambda r: "script" in words_in(r["TEXT"])),
    ({"text": "the", "language": "en", "host": "b.example"},
     lambda r: "the" in words_in(r["TEXT"]) and r["LANGUAGE"] == "en"
     and host_of(r["URL"]) == "b.example"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "holds"), FILTERS, ids=[urlencode(q) for q, _ in FILTERS])
def test_a_filter_takes_what_a_plain_one_does(
    explored: Explored, query: dict[str, Any], holds: Any
) -> None:
    """A condition that drops rows without a value, or whose bounds are not inclusive, or a page
    that shows a row twice or never."""
    wanted = [row["SAMPLE_ID"] for row in explored.rows if holds(row)]
    assert explored.ids("whole", **query) == wanted
    page = explored.json("/r/whole", **query)
    assert page["count"] == len(wanted)
    for histogram in page["histograms"]:
        assert sum(histogram["counts"]) + histogram["missing"] == len(wanted)


@pytest.mark.parametrize("sort", ["id", "-id", "mood", "-pixels", "similarity", "-punsafe"])
def test_many_rows_are_listed_as_few_are(
    explored: Explored, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a filter beyond the bound in another order, or its sample counted as the whole."""
    release = explored.settings.releases.get("whole")
    assert release is not None

    def walked() -> tuple[list[int], RowPage]:
        listing, after, found = Listing(), "", []
        while True:
            query = [("language", "de"), ("sort", sort), ("limit", "200"), ("after", after)]
            page = listing.page(release, parse(query, release), nothing_hidden)
            found += [number for number, _ in page.rows]
            if not (after := page.after):
                return found, page

    few, exact = walked()
    monkeypatch.setattr(row_summaries, "BOUND", 100)
    monkeypatch.setattr(row_summaries, "DRAWN", 60)
    many, sampled = walked()
    assert many == few
    assert (exact.summary.count, exact.summary.sampled) == (len(few), 1)
    assert (sampled.summary.count, sampled.summary.about) == (None, len(few))
    languages = dict(sampled.summary.values[0].rows)
    assert 30 <= languages["de"] <= 60
    assert sampled.summary.sampled == len(few) / languages["de"]


@pytest.mark.parametrize("sort", ["-similarity", "punsafe", "-punsafe", "mood", "-pixels", "-id"])
def test_an_order_visits_each_row_once(explored: Explored, sort: str) -> None:
    """A cursor that skips rows of equal values, or those without a value."""
    found = explored.ids("whole", sort=sort)
    assert sorted(found) == [row["SAMPLE_ID"] for row in explored.rows]
    by_id = {row["SAMPLE_ID"]: row for row in explored.rows}
    column = sort.removeprefix("-")
    if column in ("similarity", "punsafe", "mood"):
        values = [v for number in found if (v := by_id[number][column]) is not None]
        assert values == sorted(values, reverse=sort.startswith("-"))


INJECTED = "en') or 1=1; copy (select 1) to '/tmp/x'; --"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"language": INJECTED}, None), ({"licence": INJECTED}, None), ({"nsfw": INJECTED}, None),
        ({"text": "%_.*(a+)+$' or 1=1"}, None),
        ({"min_width": "1 or 1=1"}, "min_width"), ({"max_punsafe": "nan"}, "max_punsafe"),
        ({"min_similarity": "1e999"}, "min_similarity"), ({"host": "a' or '1'='1"}, "host"),
        ({"text": "!!!"}, "text"), ({"text": "x" * 301}, "text"), ({"text": "a\0b"}, "text"),
        ({"sort": "similarity desc; drop table x"}, "sort"), ({"after": "1_x"}, "after"),
        ({"after": "1) or (1=1_5"}, "after"), ({"limit": "-1"}, "limit"), ({"limit": "9999"}, "limit"),
        ({"min_aesthetic": "1"}, "aesthetic"), ({"wrong": "1"}, "wrong"),
        ({"min_width": ["1", "2"]}, "min_width"), ({"min_URL": "1"}, "min_URL"),
    ],
)  # fmt: skip
def test_no_field_is_sql(explored: Explored, query: dict[str, Any], said: str | None) -> None:
    """A value that reaches DuckDB as SQL, or an ill-typed one that is a 500."""
    answer = explored.client.get("/r/whole", params={**query, "format": "json"})
    if said is None:
        assert answer.status_code == 200
        assert answer.json()["count"] == 0
    else:
        assert answer.status_code == 400
        assert (
            said in answer.json()["error"]
            if "json" in answer.headers["content-type"]
            else (said in answer.text)
        )


def test_hostile_texts_are_text(explored: Explored) -> None:
    """An alt text that becomes markup, or a script's URL that becomes a link."""
    pages = [explored.client.get(f"/r/whole?limit=200&text={w}").text for w in ("script", "evil")]
    first = explored.rows[0]["SAMPLE_ID"]
    pages.append(explored.client.get(f"/r/whole/{first}").text)
    assert HOSTILE[0] not in "".join(pages)
    assert "&lt;script&gt;" in pages[0]
    assert "\u202e" not in pages[1]
    assert r"\u202e" in pages[1]
    for page in pages:
        assert 'href="javascript:' not in page
        assert "<img src=x>" not in page
        assert ' style="' not in page


def test_a_row_has_a_link_for_ever(explored: Explored) -> None:
    row = explored.rows[3]
    number = row["SAMPLE_ID"]
    found = explored.json(f"/r/whole/{number}")
    assert found["row"] == {k: pytest.approx(v) if k == "mood" else v for k, v in row.items()}
    same = [r["SAMPLE_ID"] for r in explored.rows if r["md5"] == row["md5"] and r is not row]
    assert found["same"]["file"] == (same if row["md5"] else [])
    assert explored.json(f"/id/{number}") == {"id": number, "releases": ["whole"]}
    assert explored.client.get(f"/id?id={number}").headers["location"] == f"/id/{number}"
    assert explored.client.get("/r/whole/999999999").status_code == 404
    assert explored.client.get(f"/id/{2**70}").status_code == 404


def test_what_was_removed_is_shown_nowhere(explored: Explored) -> None:
    """A row that was removed since, in a list, by its number, as another's duplicate or exported."""
    explored.hidden.update(row["SAMPLE_ID"] for row in explored.rows[:700])
    try:
        gone = explored.rows[5]["SAMPLE_ID"]
        assert explored.client.get(f"/r/whole/{gone}").status_code == 410
        assert explored.client.get(f"/id/{gone}").status_code == 404
        kept = {row["SAMPLE_ID"] for row in explored.rows[700:]}
        assert set(explored.ids("whole")) == kept
        for row in explored.rows[700:720]:
            same = explored.json(f"/r/whole/{row['SAMPLE_ID']}")["same"]["file"]
            assert set(same) <= kept
        assert set(exported(explored, "parquet").column("SAMPLE_ID").to_pylist()) == kept
        assert set(exported_ids(explored)) == kept
    finally:
        explored.hidden.clear()


def exported(explored: Explored, ending: str, **query: Any) -> Any:
    answer = explored.client.get(f"/r/whole/export.{ending}", params=query)
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))


def exported_ids(explored: Explored, **query: Any) -> list[int]:
    answer = explored.client.get("/r/whole/export.npy", params=query)
    found: list[int] = np.load(io.BytesIO(answer.content))["f1"].tolist()
    return found


def test_an_export_is_the_filter(explored: Explored, tmp_path: Path) -> None:
    """Other rows, another order, or other types than the release has."""
    query = {"language": "de", "min_width": 600, "text": "cat"}
    wanted = explored.ids("whole", **query)
    table = exported(explored, "parquet", **query)
    assert table.schema.equals(pq.read_schema(explored.folder / "whole" / "part-00000.parquet"))
    by_id = {row["SAMPLE_ID"]: row for row in explored.rows}
    assert table.to_pylist() == [by_id[number] for number in wanted]
    assert exported_ids(explored, **query) == wanted
    answer = explored.client.get("/r/whole/export.npy", params=query)
    (tmp_path / "x.npy").write_bytes(answer.content)
    assert len(subset.read(tmp_path / "x.npy")) == len(wanted)
    assert explored.client.get("/r/whole/export.csv").status_code == 404


def test_what_is_not_whole_is_said_and_the_rest_served(explored: Explored) -> None:
    """One half copied folder that takes the page down."""
    found = {each["name"]: each for each in explored.json("/")["releases"]}
    assert "lacks part-00001.parquet" in found["half"]["trouble"]
    assert "its manifest says" in found["cut"]["trouble"]
    assert "neither SAMPLE_ID nor uid" in found["nameless"]["trouble"]
    assert found["whole"]["trouble"] is None
    page = explored.client.get("/").text
    assert "lacks part-00001.parquet" in page
    assert explored.client.get("/r/half").status_code == 503
    assert explored.client.get("/r/no-such").status_code == 404
    # no copy can be made of it, and its rows are served from its files
    twice = explored.json("/r/z-twice")
    assert twice["partial"]
    assert twice["count"] == 4


def test_a_crafted_name_is_a_name(explored: Explored) -> None:
    """A quote or a pattern in a folder's name that names other files."""
    [release] = [each for each in explored.settings.releases.all() if each.name == CRAFTED]
    assert not release.trouble
    path = f"/r/{httpx.QueryParams({'x': CRAFTED})['x']}"
    assert explored.ids(CRAFTED.replace(" ", "%20").replace("[", "%5B").replace("]", "%5D")) == [
        1,
        2,
        3,
    ]
    assert "'" in path
    link = explored.client.get("/").text
    assert "/r/it%27s%20%5Ba%5D%20%2A.parquet%27%20%3B%20attach" in link


def test_nothing_matches_says_which_to_loosen(explored: Explored) -> None:
    query = {"language": "de", "host": "no.such.host"}
    page = explored.json("/r/whole", **query)
    german = sum(row["LANGUAGE"] == "de" for row in explored.rows)
    assert page["loosen"] == [{"filter": "host", "without_it": german}]
    html = explored.client.get("/r/whole", params=query).text
    assert "without “host is no.such.host”" in html
    [query_string] = [p for p in html.split('"') if p.startswith("/r/whole?language=de")][:1]
    assert parse_qs(urlsplit(query_string).query) == {"language": ["de"]}


def test_there_is_no_search_by_meaning_without_its_service(explored: Explored) -> None:
    assert "--knn" in explored.client.get("/search").text
    assert explored.client.get("/search?text=cat").status_code == 400


def test_duckdb_reads_no_other_file(explored: Explored, tmp_path: Path) -> None:
    """An injection that would reach files, the network, settings or extensions."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    duck = explored.settings.releases.get("whole").at.duck  # type: ignore[union-attr]
    for query in (
        f"select * from read_csv('{secret}')", f"select * from '{secret}'",
        f"copy (select 1) to '{tmp_path}/out'", f"attach '{tmp_path}/new.duckdb'",
        "install httpfs", "set enable_external_access = true", "set memory_limit = '9GB'",
        f"select * from glob('{tmp_path}/*')", "select * from explored",
    ):  # fmt: skip
        with pytest.raises(UserError):
            duck.rows(query)
    assert list(tmp_path.iterdir()) == [secret]


def test_a_long_query_is_interrupted() -> None:
    duck = Duck(memory="100MB")
    endless = "select count(*) from range(1000000000) a, range(1000000000) b where a.range % 7 = 3"
    with pytest.raises(QueryTooLong):
        duck.rows(endless, seconds=0.2)
    assert duck.rows("select 1 as one") == [{"one": 1}]


def test_a_release_comes_and_goes(tmp_path: Path) -> None:
    """A folder that is seen after a restart alone."""
    folder = tmp_path / "releases"
    folder.mkdir()
    settings = settings_of([folder], tmp_path / "work", set())
    with browsing(make_explore(settings)) as client:
        assert "There is no release here yet" in client.get("/").text
        made_release(folder / "new", rows_of([1, 2]))
        settings.releases.look()
        assert client.get("/r/new?format=json").json()["partial"]
        before = settings.releases.get("new")
        prepared(settings)
        assert not client.get("/r/new?format=json").json()["partial"]
        assert before is not None
        assert before.row(1) is not None  # a request that has the release of before
        for path in (folder / "new").iterdir():
            path.unlink()
        (folder / "new").rmdir()
        settings.releases.look()
        assert client.get("/r/new").status_code == 404

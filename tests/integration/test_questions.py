"""The questions of docs/researcher.md: each answer against one that Python counts from the rows, each plan without a loop
that reads a table once a row."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.database import Database
from support.random_history import RandomHistory
from support.template import Template

PAGE = Path(__file__).parents[2] / "docs" / "researcher.md"
Row = dict[str, Any]


def questions() -> dict[str, str]:
    """The page's queries by the question that stands above each."""
    chapter = PAGE.read_text().split("## Twelve questions")[1].split("\n## ")[0]
    return dict(re.findall(r"\*\*(.+?\?)\*\*.*?```sql\n(.*?)```", chapter, re.S))


@pytest.fixture(scope="module")
def line(template: Template) -> Iterator[Database]:
    with template.copy() as db:
        RandomHistory(db, 2).run()
        db.admin.execute(
            "insert into mill.release (name, version, recipe, manifest_sha256, candidates, kept, excluded, unfinished, words)"
            " select name, 1, '{}', '', 0, 0, '{}', '{}', words from (values ('old', '{kept,small}'::text[]), ('old', '{kept,dull}'), ('new', '{kept}'))"
            " v (name, words)"
        )
        db.admin.execute(
            "insert into mill.release_batch (batch_id, release_id, decisions)"
            " select batch_id, release_id, case release_id when 3 then '\\x01'::bytea else '\\x000102'::bytea end"
            " from mill.batch, mill.release"
        )
        yield db


def rows(db: Database, query: str, *arguments: Any) -> list[Row]:
    cursor = db.admin.execute(query, arguments)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


class Truth:
    """What is known of each pair that counts, worked out in Python from the tables alone."""

    def __init__(self, db: Database) -> None:
        gone = {number for (number,) in db.rows("select submission_id from mill.withdrawn")}

        def counting(table: str) -> list[Row]:
            return [
                r for r in rows(db, f"select * from mill.{table}") if r["submission_id"] not in gone
            ]

        self.outcomes = dict(db.rows("select code, name from mill.outcome"))
        self.score_outcomes = dict(db.rows("select code, name from mill.score_outcome"))
        self.models = {r["model_id"]: r for r in rows(db, "select * from mill.model")}
        self.pairs = {(p["batch_id"], p["n"]): p for p in counting("pair")}
        downloads: dict[tuple[int, int], Row] = {}
        for d in sorted(counting("download"), key=lambda r: int(r["attempt"])):
            if (d["batch_id"], d["n"]) in self.pairs:  # its extraction may have been withdrawn
                downloads[d["batch_id"], d["n"]] = d
        self.downloads = downloads
        self.scores = [s for s in counting("score") if self._current(s)]
        self.tags = [g for g in counting("tag") if self._current(g)]
        self.opt_outs = [x for x in rows(db, "select * from mill.opt_out") if self._current(x)]
        reasons = dict(db.rows("select removal_id, reason from mill.removal"))
        self.removed: dict[tuple[int, int], str] = {}
        for batch, n, removal in db.rows(
            "select batch_id, n, removal_id from mill.removed_pair order by removal_id"
        ):
            self.removed.setdefault((batch, n), reasons[removal])
        self.scored = {
            (s["batch_id"], s["n"]): s for s in self.scores if s["model_id"] == min(self.models)
        }

    def _current(self, row: Row) -> bool:
        download = self.downloads.get((row["batch_id"], row["n"]))
        return download is not None and download["attempt"] == row["attempt"]

    def seen(self, key: tuple[int, int]) -> str | None:
        """The host of a pair that is not removed."""
        return None if key in self.removed else self.pairs[key]["url"].split("/")[2]

    def similarities(self) -> dict[tuple[int, int], float]:
        found = {key: s["similarity"] for key, s in self.scored.items() if key in self.pairs}
        return {key: value for key, value in found.items() if value is not None}


@pytest.fixture(scope="module")
def truth(line: Database) -> Truth:
    return Truth(line)


def dead_links(t: Truth) -> list[tuple[Any, ...]]:
    found = defaultdict(list)
    for key, d in t.downloads.items():
        if d["outcome"] not in (0, 50, 51):
            found[t.seen(key)].append(t.outcomes[d["outcome"]])
    hosts = sorted(found, key=lambda h: (-len(found[h]), h is None, h))
    most = {h: min(set(found[h]), key=lambda o: (-found[h].count(o), o)) for h in hosts}
    # no network of these workers is known, so no link is believed to be dead
    return [(h, len(found[h]), 0, most[h]) for h in hosts[:20]]


def licences(t: Truth) -> list[tuple[Any, ...]]:
    found = Counter(
        (p["language"] or "nolang", p["license"])
        for key, p in t.pairs.items()
        if p["license"] and key not in t.removed
    )
    return sorted(((*k, v) for k, v in found.items()), key=lambda r: (-r[2], r[0], r[1]))


def similarities(t: Truth) -> list[tuple[Any, ...]]:
    # as the database does, in float4's and then float8's
    found = Counter(math.floor(s * 100) / 100 for s in t.similarities().values())
    return sorted(found.items())


def removed(t: Truth) -> list[tuple[Any, ...]]:
    found = Counter(reason for key, reason in t.removed.items() if key in t.pairs)
    return sorted(found.items(), key=lambda r: (-r[1], r[0]))


def kept(t: Truth) -> list[tuple[Any, ...]]:
    scored, above = Counter[str](), Counter[str]()
    for key, s in t.similarities().items():
        language = t.pairs[key]["language"] or "nolang"
        scored[language] += 1
        above[language] += s >= 0.28
    return [(k, above[k], n) for k, n in sorted(scored.items(), key=lambda r: (-r[1], r[0]))]


def duplicates(t: Truth) -> list[tuple[Any, ...]]:
    images = {
        key: d["md5"]
        for key, d in t.downloads.items()
        if d["md5"] and key in t.pairs and key not in t.removed
    }
    copies = Counter(images.values())
    found = Counter(t.seen(key) for key, md5 in images.items() if copies[md5] > 1)
    return sorted(found.items(), key=lambda r: (-r[1], r[0]))[:20]


def sizes(t: Truth) -> list[tuple[Any, ...]]:
    edges, found = (64, 128, 256, 512, 1024, 2048), defaultdict(list)
    for key, d in t.downloads.items():
        if d["outcome"] == 0 and key in t.pairs:
            side = min(d["width"], d["height"])
            found[sum(side >= edge for edge in edges)].append(side)
    return [(bucket, min(sides), len(sides)) for bucket, sides in sorted(found.items())]


def models(t: Truth) -> list[tuple[Any, ...]]:
    found = defaultdict(list)
    for s in t.scores:
        model = t.models[s["model_id"]]
        found[model["name"], model["pretrained"], t.score_outcomes[s["outcome"]]].append(
            s["similarity"]
        )
    return [
        (*k, len(v), None if v[0] is None else pytest.approx(sum(v) / len(v)))
        for k, v in sorted(found.items())
    ]


COUNTED: dict[str, Callable[[Truth], list[tuple[Any, ...]]]] = {
    "Which hosts have most dead links?": dead_links,
    "Which licences, in which languages?": licences,
    "How are the similarities spread?": similarities,
    "What was removed, and for which reasons?": removed,
    "How many pairs would a threshold keep?": kept,
    "Which hosts have most duplicates?": duplicates,
    "How large are the images?": sizes,
    "Which model scored what?": models,
}
ONE_PAIR = {
    "Which page, WAT file and crawl is this pair from?",
    "What of a host opted out, and in which words?",
    "Why is this URL not in the release?",
}


def test_each_question_is_tested() -> None:
    """test_history.py has the sums of the last one."""
    assert len(questions()) == 12
    assert set(questions()) == set(COUNTED) | ONE_PAIR | {"What came in, day by day?"}


@pytest.mark.parametrize("question", COUNTED)
def test_answers_are_what_the_rows_say(line: Database, truth: Truth, question: str) -> None:
    expected = COUNTED[question](truth)
    assert expected, "the history has none of it"
    assert line.rows(questions()[question]) == expected


def test_a_pair_says_where_it_is_from(line: Database, truth: Truth) -> None:
    query = questions()["Which page, WAT file and crawl is this pair from?"]
    for (batch, n), pair in list(truth.pairs.items())[:5]:
        if (batch, n) in truth.removed:
            continue
        number = batch * 16384 + n
        (found,) = line.rows(query.replace("16385", str(number)))
        wat = pair["wat_id"]
        assert found[:3] == (
            f"crawl/{wat - 1}.wat.gz",
            f"CC-MAIN-202{(wat - 1) // 2}-10",
            f"https://site{wat}.example/{pair['page']}",
        )


def test_opt_outs_of_a_host(line: Database, truth: Truth) -> None:
    by_host: dict[str | None, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    for x in truth.opt_outs:
        key = (x["batch_id"], x["n"])
        by_host[truth.seen(key) if key in truth.pairs else None][
            x["signal"], x["value"], x["source"]
        ] += 1
    host = max(by_host, key=lambda h: len(by_host[h]) if h else 0)
    query = questions()["What of a host opted out, and in which words?"].replace(
        "example.org", str(host)
    )
    assert {(*key, count) for key, count in by_host[host].items()} == set(line.rows(query))


@pytest.mark.parametrize(
    ("n", "expected"), [(0, {"new": "kept"}), (1, {"old": "kept"}), (2, {"old": "dull"}), (3, None)]
)
def test_a_url_says_what_the_newest_releases_made_of_it(
    line: Database, truth: Truth, n: int, expected: object
) -> None:
    """The older record of a name is not asked; a pair that came after the record has none."""
    key = next(k for k in truth.pairs if k[1] == n and k not in truth.removed)
    url = truth.pairs[key]["url"]
    query = questions()["Why is this URL not in the release?"]
    for form in (url, url + "#part"):
        (found,) = line.rows(query.replace("https://example.org/picture.jpg", form))
        assert found[5] == expected
        download = truth.downloads.get(key)
        assert found[0] == (download and truth.outcomes[download["outcome"]])
    assert line.rows(query) == []  # no pair has that URL


HIDDEN = (
    "url",
    "host",
    "text",
    "license",
    "page_url",
    "md5",
    "sha256",
    "dhash",
    "opt_out_value",
    "opt_out_source",
    "value",
    "source",
)


@pytest.mark.parametrize("view", ["sample", "pair", "opt_out", "dead_link", "recheck"])
def test_no_view_shows_what_a_removed_pair_was(line: Database, truth: Truth, view: str) -> None:
    shown = [
        r
        for r in rows(line, f"select * from report.{view}")
        if (r["batch_id"], r["n"]) in truth.removed
    ]
    if view in ("sample", "pair"):
        assert {(r["batch_id"], r["n"]) for r in shown} == set(truth.removed) & set(truth.pairs)
    assert {r[name] for r in shown for name in HIDDEN if name in r} <= {None}
    urls = {p["url"] for key, p in truth.pairs.items() if key in truth.removed}
    assert urls
    assert not urls & {
        value
        for r in rows(line, f"select * from report.{view}")
        for value in r.values()
        if isinstance(value, str)
    }


def test_a_removed_pair_is_found_by_its_url_without_it(line: Database, truth: Truth) -> None:
    key = next(k for k in truth.removed if k in truth.pairs)
    found = rows(line, "select * from report.find(%s)", truth.pairs[key]["url"])
    assert [(r["batch_id"], r["n"], r["url"], r["removed_because"]) for r in found] == [
        (*key, None, truth.removed[key])
    ]


def test_tags_and_similarities_of_a_pair(line: Database, truth: Truth) -> None:
    tags = {(g["batch_id"], g["n"]): g["value"] for g in truth.tags}
    by_model: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for s in truth.scores:
        if s["similarity"] is not None:
            by_model[s["batch_id"], s["n"]][truth.models[s["model_id"]]["name"]] = s["similarity"]
    for r in rows(line, "select * from report.sample"):
        key = (r["batch_id"], r["n"])
        assert (r["tags"] or {}) == ({"tagger-t1": pytest.approx(tags[key])} if key in tags else {})
        assert (r["similarities"] or {}) == pytest.approx(by_model.get(key, {}))


def test_the_default_model_can_be_chosen(line: Database, truth: Truth) -> None:
    second = sorted(m for m in truth.models if truth.models[m]["kind"] == "clip")[1]
    count = "select count(similarity) from report.sample"
    expected = {
        m: sum(
            s["similarity"] is not None and s["model_id"] == m
            for s in truth.scores
            if (s["batch_id"], s["n"]) in truth.pairs
        )
        for m in truth.models
    }
    assert line.value(count) == expected[min(truth.models)]
    with line.admin.transaction(force_rollback=True):
        line.admin.execute("update mill.setting set default_model_id = %s", (second,))
        assert line.value(count) == expected[second]
        assert line.rows("select name from report.model where is_default") == [("model-d2",)]
    with line.admin.transaction(force_rollback=True):
        line.admin.execute(
            "update mill.model set retired_at = now() where model_id = %s", (min(truth.models),)
        )
        assert line.value(count) == expected[second]


# ---- plans -----------------------------------------------------------------------------------------

JOINS = {
    "score with pair": "select p.language, avg(s.similarity) from report.pair p join report.score s using (batch_id, n)"
    " where p.bytes >= 5000 and p.outcome = 'success' and s.model = 'model-d1' group by 1",
    "three views": "select count(*) from report.sample p join report.score s using (batch_id, n) join report.tag t using (batch_id, n)"
    " where p.language = 'ja' and s.outcome = 'scored' and t.model = 'tagger-t1'",
    "without a score": "select count(*) from report.pair p where not exists"
    " (select from report.score s where s.batch_id = p.batch_id and s.n = p.n)",
    "opt-outs with pairs": "select count(*) from report.opt_out o join report.pair p using (sample_id) where p.language = 'de'",
    "dead links with rechecks": "select count(*) from report.dead_link d left join report.recheck r using (sample_id)",
    "wrong thumbnails": "select * from report.wrong_thumbnail",
    "counts of pairs": "select * from report.pair_count",
    "counts of scores": "select * from report.score_count",
}
FEW = "update pg_class set reltuples = 2325 * 40, relpages = 4000 where relnamespace = 'mill'::regnamespace and relkind = 'r' and relname ~ '_b000000$'"
MANY = FEW.replace("2325 * 40", "10000 * 150").replace("4000", "60000")


@pytest.fixture(scope="module")
def reader(line: Database) -> Iterator[psycopg.Connection[Any]]:
    """A researcher's login."""
    line.admin.execute("select mill.add_researcher('reader_of_questions', 'reader', 'secret')")
    with psycopg.connect(line.dsn, user="reader_of_questions", password="secret") as connection:
        yield connection
    line.admin.execute("drop role reader_of_questions")


BIG = re.compile(r"(pair|download|score|tag|opt_out)_b\d+")


def test_a_researcher_may_ask_all_of_it(line: Database, reader: psycopg.Connection[Any]) -> None:
    """A view's functions are called with its reader's rights."""
    for query in {**questions(), **JOINS}.values():
        reader.execute(query)
    views = line.rows(
        "select oid::regclass::text from pg_class where relnamespace = 'report'::regnamespace and relkind = 'v'"
    )
    assert len(views) > 20
    for (view,) in views:
        reader.execute(f"select * from {view} limit 3")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select url from mill.pair")
    reader.rollback()


def loops(node: Row) -> Iterator[str]:
    """Loops over pairs whose inner side looks no pair up, and so reads a batch or all once a pair."""
    if node["Node Type"] == "Nested Loop":
        outer, inner = (list(scans(side)) for side in node["Plans"][:2])
        if any(is_big(scan) for scan in outer):
            for scan in inner:
                if is_big(scan) and not re.search(r"\bn = ", scan.get("Index Cond", "")):
                    yield f"{scan['Relation Name']} {scan['Node Type']}"
    for child in node.get("Plans", ()):
        yield from loops(child)


def is_big(scan: Row) -> bool:
    return bool(BIG.fullmatch(scan.get("Relation Name", "")))


def scans(node: Row) -> Iterator[Row]:
    """Of values that are made once, or looked up, for a row none."""
    if "Relation Name" in node:
        yield node
    for child in node.get("Plans", ()):
        if child.get("Parent Relationship") not in ("InitPlan", "SubPlan"):
            yield from scans(child)


@pytest.mark.parametrize("statistics", ["none", "few", "many", "fresh"])
def test_no_plan_reads_a_table_once_a_row(
    line: Database, reader: psycopg.Connection[Any], statistics: str
) -> None:
    """report.score with report.pair ran for ten minutes, in a loop whose outer side was estimated at one row."""
    found = {}
    if statistics == "fresh":
        line.admin.execute("analyze")
    elif statistics != "none":
        line.admin.execute(FEW if statistics == "few" else MANY)
    for name, query in {**questions(), **JOINS}.items():
        (plan,) = reader.execute(f"explain (format json) {query}").fetchone() or ({},)
        found[name] = list(loops(plan[0]["Plan"]))
        reader.rollback()
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_a_loop_that_reads_a_batch_for_each_pair_would_be_seen(line: Database) -> None:
    with line.admin.transaction(force_rollback=True):
        line.admin.execute("set local enable_hashjoin = off; set local enable_mergejoin = off")
        plan = line.value(f"explain (format json) {JOINS['score with pair']}")
    assert list(loops(plan[0]["Plan"]))


def test_a_range_reads_only_its_batches(line: Database, truth: Truth) -> None:
    """Of every table: a range used to reach the first one alone."""
    query = "select max(url), max(similarity), max(tags::text), max(opt_out_signal) from report.sample where batch_id between 1 and 2"
    (plan,) = line.admin.execute(
        f"explain (analyze, timing off, format json) {query}"
    ).fetchone() or ({},)
    read = Counter[str]()
    for scan in scans(plan[0]["Plan"]):
        read[scan.get("Relation Name", "")] += scan["Actual Rows"] * scan["Actual Loops"]
    of_range = {"pair": truth.pairs, "download": truth.downloads}
    for table, known in of_range.items():
        rows_there = line.value(f"select count(*) from mill.{table} where batch_id between 1 and 2")
        assert 0 < read[f"{table}_b000000"] <= 2 * rows_there < 2 * len(known)

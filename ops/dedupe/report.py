"""What dedupe would find among rows: by method, by size of group, with samples to look at."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from pairmill.ops.archive.facts import Facts, file_system
from pairmill.ops.dedupe.duplicate_search import find_duplicates
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text

ROWS = 5  # of a group that is shown


def facts_below(given: str) -> list[Facts]:
    """The folders of facts of a path or URL: itself, or the newest generations of an archive.
    Raises UserError where there are none."""
    if Facts(given, 0, 0).has("pair"):
        return [Facts(given, 0, 0)]
    newest: dict[tuple[int, int], str] = {}
    for folder in sorted(_globbed(given.rstrip("/") + "/batches-*-*/g*")):
        if found := re.search(r"batches-(\d+)-(\d+)/g\d+$", folder):
            newest[int(found[1]), int(found[2])] = folder
    if not newest:
        raise UserError(
            f"{given} has no facts: name a folder with pair.parquet, an archive, or a release"
        )
    return [Facts(folder, *batches) for batches, folder in sorted(newest.items())]


def _globbed(pattern: str) -> list[str]:
    if "://" not in pattern:
        root, _, rest = pattern.partition("/batches-")
        return [str(path) for path in Path(root).glob(f"batches-{rest}")]
    files = file_system(pattern)
    return [files.unstrip_protocol(path) for path in files.glob(pattern)]


def model_of(facts: Sequence[Facts]) -> int | None:
    """The one model whose embeddings the facts have; None where they have none. Raises UserError
    for several."""
    found = {
        int(name[1])
        for each in facts
        for path in _globbed_files(each)
        if (name := re.search(r"embedding-(\d+)\.parquet$", path))
    }
    if len(found) > 1:
        raise UserError(
            "there are embeddings of several models: say which with --model-id"
            f" ({', '.join(str(each) for each in sorted(found))})"
        )
    return found.pop() if found else None


def _globbed_files(facts: Facts) -> list[str]:
    if "://" not in facts.folder:
        return [str(path) for path in Path(facts.folder).glob("embedding-*.parquet")]
    return [str(path) for path in file_system(facts.folder).glob(f"{facts.folder}/embedding-*")]


@contextmanager
def opened(memory: str, threads: int | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB of bounded memory that spills, and its folder, which go at the end."""
    with TemporaryDirectory(prefix="pairmill-dedupe-") as name:
        db = duckdb.connect(f"{name}/pool.duckdb")
        try:
            db.execute(f"SET memory_limit = {quoted(memory)}")
            if threads:
                db.execute(f"SET threads = {threads}")
            yield db, Path(name)
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise UserError(f"DuckDB could not do it: {first}") from None
        finally:
            db.close()


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def pool_of_facts(
    db: duckdb.DuckDBPyConnection, facts: Sequence[Facts], model_id: int | None
) -> None:
    """Make the view ``pool`` of all rows of facts."""
    queries = []
    for each in facts:
        if not each.has("download"):  # nothing was downloaded yet
            continue
        if "://" in each.folder:
            db.register_filesystem(file_system(each.folder))
        scored = model_id is not None and each.has("score", model_id)
        join = (
            f"left join read_parquet({quoted(each.path('score', model_id))}) s"
            " on s.sample_id = p.sample_id and s.counts"
        )
        queries.append(
            query_text("dedupe", "pool").format(
                pair=each.path("pair").replace("'", "''"),
                download=each.path("download").replace("'", "''"),
                score=join if scored else "",
                similarity="s.similarity" if scored else "null::float",
            )
        )
    if not queries:
        raise UserError("nothing of these facts was downloaded: there is nothing to compare")
    db.execute(f"CREATE VIEW pool AS {' UNION ALL '.join(f'({query})' for query in queries)}")


def report(
    db: duckdb.DuckDBPyConnection,
    spec: Dedupe,
    facts: Sequence[Facts],
    work: Path,
    *,
    model_id: int | None,
    groups: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """What find_duplicates finds in the view ``pool``: rows, methods, sizes (size, groups), and
    samples of ``groups`` groups a method."""
    findings = find_duplicates(db, "pool", spec, facts, work, model_id=model_id, progress=progress)
    (rows,) = db.execute("SELECT count(*) FROM pool").fetchall()[0]
    (go,) = db.execute("SELECT count(*) FROM duplicate").fetchall()[0]
    sizes = db.execute(query_text("dedupe", "sizes")).fetchall()
    return {
        "rows": rows,
        "duplicates": go,
        "stay": rows - go,
        "methods": [each.as_dict() for each in findings],
        "sizes": [{"size": size, "groups": count} for size, count in sizes],
        "samples": _samples(db, groups),
        "contaminated": [
            {"sample_id": sample, "evaluation": evaluation, "image": image}
            for sample, evaluation, image in db.execute(
                f"SELECT * FROM contaminated ORDER BY sample_id LIMIT {groups}"
            ).fetchall()
        ],
    }


def _samples(db: duckdb.DuckDBPyConnection, groups: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    rows = db.execute(query_text("dedupe", "samples").format(groups=groups)).fetchall()
    for method, of, of_url, of_text, sample, url, text in rows:
        group = found.setdefault(
            (method, of),
            {"method": method, "stays": {"sample_id": of, "url": of_url, "text": of_text},
             "go": [], "rows": 0},
        )  # fmt: skip
        group["rows"] += 1
        if len(group["go"]) < ROWS:
            group["go"].append({"sample_id": sample, "url": url, "text": text})
    return list(found.values())

"""pairmill release: a recipe into Parquet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.progress import TaskID

from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import recipes, releases
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, YES, confirm, counted
from pairmill.ops.commands.publication_options import (
    CITE_AS,
    CREATOR,
    CREATOR_URL,
    DATE_PUBLISHED,
    URL,
)
from pairmill.ops.output import print_json, print_rows, progress_bar
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

# msgspec, numpy and pyarrow are not in every installation
if TYPE_CHECKING:
    from pairmill.ops.release.decisions import Decisions
    from pairmill.ops.release.unfinished import Unfinished

app = typer.Typer(no_args_is_help=True, help="Releases.")


RECIPE = typer.Argument(help="A recipe's name (laion-400m) or file.", autocompletion=recipes)
SET = typer.Option(
    [], "--set", help="Another value than the recipe's: --set min_similarity=0.28"
)  # fmt: skip
Engines = Literal["duckdb", "spark"]
SHOWN = ("release_id", "name", "version", "built_at", "built_by", "kept", "candidates",
         "not_done")  # fmt: skip


@app.command("build")
def build(
    recipe: str = RECIPE,
    out: Path = typer.Option(None, "--out", help="A folder that does not exist yet, or is empty."),
    overrides: list[str] = SET,
    dry_run: bool = typer.Option(False, "--dry-run", help="Count by reason; write nothing."),
    strict: bool = typer.Option(
        False, "--strict", help="Build nothing while work is queued or under way."
    ),
    no_record: bool = typer.Option(
        False, "--no-record", help="Keep no record of it: `why` and report.release need one."
    ),
    work: Path = typer.Option(
        None,
        "--work",
        help="A folder for what is between the passes: a build that was cut off goes on there."
        " Its disk should have room for the rows that the recipe keeps, twice.",
    ),
    engine: Engines = typer.Option("duckdb", "--engine", help="Of the passes over facts."),
    master: str = typer.Option(
        "local[*]", "--master", help="Spark's: local[2], spark://host:7077, yarn."
    ),
    memory: str = typer.Option(
        None, "--memory", help="DuckDB's limit, like 8GB; what is beyond it spills to --work."
    ),
    threads: int = typer.Option(None, "--threads", min=1, help="DuckDB's; else all cores."),
    date_published: str = DATE_PUBLISHED,
    creator: str = CREATOR,
    creator_url: str = CREATOR_URL,
    url: str = URL,
    cite_as: str = CITE_AS,
    as_json: bool = typer.Option(False, "--json", help="Print the manifest."),
) -> None:
    """Write the pairs that a recipe keeps as Parquet files, in a folder that any reader takes.

    The pairs are read from the archive, and from the database what is not in it; the same recipe
    and state give the same bytes wherever they are. What it decided of every pair is kept in the
    database, about half a byte a pair: `why` says it. Work that is not done yet is said, and is in
    the manifest. Exit code 1 with --strict where there is such work, also with --dry-run.
    """
    from pairmill.ops.release import recipe as recipes
    from pairmill.ops.release import release
    from pairmill.ops.release.cards.publication import Publication
    from pairmill.ops.release.unfinished import has_work

    if (out is None) is not dry_run:
        raise typer.BadParameter("--out FOLDER, or --dry-run without it")
    chosen = recipes.load(recipe, recipes.parse_overrides(overrides))
    said = Publication(date_published, creator, creator_url, url, cite_as).as_dict()
    with admin() as connection, _stages() as stages:
        how = release.How(work, engine, master, memory, threads, stages, said)
        if dry_run:
            planned = release.rehearse(connection, chosen, how)
        else:
            manifest = release.build(
                connection,
                chosen,
                out,
                how=how,
                progress=lambda done, total: stages("files", done, total),
                record=not no_record,
                strict=strict,
            )
    if dry_run:
        _say_planned(*planned, as_json)
        if strict and has_work(planned[1]):
            raise typer.Exit(1)
        return
    if as_json:
        print_json(manifest.as_dict())
    else:
        say(f"{manifest.kept:,} of {manifest.candidates:,} pairs kept, in {out}")
    _warn(manifest.unfinished)


# pass -> its words, and in which order it comes
STAGES = {
    "facts": "exporting facts (batches)", "pool": "the pool of top_fraction (batches)",
    "filters": "filtering (batches)", "duplicates": "finding duplicates",
    "removals": "removals", "files": "writing (rows)", "cards": "statistics and cards",
}  # fmt: skip


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows (pass, done, to do) as a bar for each pass, with the time left."""
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(STAGES[stage], total=None)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _say_planned(decisions: "Decisions", unfinished: "Unfinished", as_json: bool) -> None:
    if as_json:
        kept_by_language = dict(sorted(decisions.kept_by_language.items()))
        print_json({
            "candidates": decisions.candidates, "kept": decisions.kept,
            "excluded": dict(sorted(decisions.excluded.items())),
            "kept_by_language": kept_by_language, "unfinished": unfinished, "dry_run": True,
        })  # fmt: skip
        return
    say(f"{decisions.kept:,} of {decisions.candidates:,} pairs would be kept")
    counts = [{"left out because": k, "pairs": v} for k, v in decisions.excluded.most_common()]
    if counts:
        print_rows(counts, ("left out because", "pairs"), as_json=False, empty="")
    _warn(unfinished)


def _warn(unfinished: "Unfinished") -> None:
    from pairmill.ops.release.unfinished import sentence

    if unfinished:
        say(f"not done yet: {sentence(unfinished)}", err=True)


@app.command("list")
def listing(as_json: bool = AS_JSON) -> None:
    """The releases that were recorded, the newest first."""
    from pairmill.ops.release.unfinished import sentence

    with admin() as connection:
        found = rows(connection, "select * from report.release order by release_id desc")
    if not as_json:
        for record in found:
            record["not_done"] = sentence(record["unfinished"])
    print_rows(
        found,
        SHOWN,
        as_json=as_json,
        empty="no release is recorded: `pairmill release build` records what it builds",
    )


@app.command("forget")
def forget(
    what: list[str] = typer.Argument(
        help="Numbers (`release list`), or names: all of a name.", autocompletion=releases
    ),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
) -> None:
    """Delete the records of releases; their folders stay, and `why` knows them no more."""
    from pairmill.ops.release import record

    with admin() as connection:
        found = record.find(connection, what)
        for each in found:
            say(
                f"record {each['release_id']}: {each['name']}, version {each['version']}, of"
                f" {each['built_at']:%Y-%m-%d %H:%M}, {each['candidates']:,} decisions"
            )
        if dry_run:
            return
        confirm(yes)
        record.forget(connection, [each["release_id"] for each in found])
    say(f"{counted(len(found), 'record')} deleted")


@app.command("why")  # and `pairmill why`
def why(
    question: str = typer.Argument(metavar="URL|SAMPLE_ID", help="The pair."),
    releases: list[str] = typer.Option(
        [],
        "--release",
        help="A recorded release, by name or number; else the newest of each name.",
        autocompletion=releases,
    ),
    recipe: str = typer.Option(
        None,
        "--recipe",
        help="A recipe's name or file, asked of today's state without a build.",
        autocompletion=recipes,
    ),
    overrides: list[str] = SET,
    as_json: bool = AS_JSON,
) -> None:
    """Say why a pair is in a release or not: what became of it, and each release's decision."""
    from pairmill.ops.release import recipe as recipes
    from pairmill.ops.release import why as reasons

    if overrides and not recipe:
        raise typer.BadParameter("--set changes a recipe: name it by --recipe")
    chosen = recipes.load(recipe, recipes.parse_overrides(overrides)) if recipe else None
    with admin() as connection:
        told = reasons.ask(connection, question, releases, chosen)
    if as_json:
        print_json(told)
        return
    for line in reasons.lines(told):
        say(line)

"""pairmill release subset: the ids of a data set, as DataComp's files of subsets."""

from dataclasses import asdict
from pathlib import Path

import typer

from pairmill.ops.commands.options import AS_JSON, counted, progress
from pairmill.ops.commands.release import app
from pairmill.ops.output import print_json
from pairmill.workers.safe_text import say


@app.command("subset")
def subset(
    source: Path = typer.Argument(
        help="A release, Parquet with SAMPLE_ID or uid (a file or a folder), or a subset's .npy."
    ),
    out: Path = typer.Option(
        ..., "--out", help="A file: .npy (u8,u8, sorted), .parquet or .txt, by its ending."
    ),
    within: list[Path] = typer.Option(
        [], "--within", help="Only what this .npy names too; may be given several times."
    ),
    without: list[Path] = typer.Option(
        [], "--without", help="Nothing that this .npy names; may be given several times."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Write the ids of a release, or of somebody's files, as a subset: DataComp's .npy, or a list.

    Needs no database. A recipe's key `subset` builds a release of such a file;
    `release apply FILE.npy FOLDER --out NEW --sha256 …` makes a folder's copy of what it names.
    """
    from pairmill.ops.release import subset as subsets

    with progress("reading ids") as report:
        found = subsets.write(source, out, within=within, without=without, progress=report)
    if as_json:
        print_json(asdict(found))
        return
    left = found.read - found.repeated - found.ids
    said = [f"{counted(found.ids, 'id')} in {found.file}"]
    said += [f"{left:,} left out"] if left else []
    said += [f"{found.repeated:,} repeated"] if found.repeated else []
    say(f"{', '.join(said)}; sha256 {found.sha256}")

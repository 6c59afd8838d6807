"""pairmill text-safety: a classifier's scores of the texts of a release."""

from pathlib import Path

import typer

from pairmill.ops.commands.options import counted
from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.output import print_json, progress_bar
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Scores of texts by a classifier of yours.")


@app.command("score")
def score(
    folder: Path = typer.Argument(
        metavar="RELEASE", help="A release's folder, or a Parquet file with SAMPLE_ID and TEXT."
    ),
    model: Path = typer.Option(
        ..., "--model", help="A folder with a Hugging Face classifier, or detoxify's checkpoint."
    ),
    out: Path = typer.Option(
        ..., "--out", help="A folder for the scores; one that was begun is gone on with."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the manifest of the scores."),
) -> None:
    """Score texts, and print what a recipe needs to leave out those above a bound.

    It needs no database. A run that was cut off goes on with the next file.
    """
    from pairmill.ops.release import text_scores
    from pairmill.ops.taggers import text_classifier

    parts = _parts(folder)
    classifier = text_classifier.load(model)
    with progress_bar() as bar:
        task = bar.add_task("scoring texts", total=None)
        manifest = text_scores.score(
            parts,
            classifier,
            out,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(manifest)
        return
    rows = sum(entry["rows"] for entry in manifest["files"])
    say(f"{counted(rows, 'text')} scored, in {out}; for a recipe:")
    manifest_path = out / text_scores.MANIFEST
    bounds = ", ".join(f"{label} = 0.5" for label in classifier.labels)
    for line in (
        "[text_safety]",
        f'scores = {{ file = "{manifest_path}", sha256 = "{sha256(manifest_path)}" }}',
        f"max = {{ {bounds} }}",
    ):
        say(line)


def _parts(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("_"))
    if not found:
        raise UserError(f"{folder} has no Parquet files")
    return found

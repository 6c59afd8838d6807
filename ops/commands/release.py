"""pairmill release: a recipe into Parquet."""

from pathlib import Path

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.output import print_json, print_json_text, progress_bar
from pairmill.workers.safe_text import say, say_page

app = typer.Typer(no_args_is_help=True, help="Releases.")


@app.command("build")
def build(
    recipe: str = typer.Argument(help="A recipe's name (laion-400m) or file."),
    out: Path = typer.Option(..., "--out", help="A folder that does not exist yet, or is empty."),
    overrides: list[str] = typer.Option(
        [], "--set", help="Another value than the recipe's: --set min_similarity=0.28"
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the manifest."),
) -> None:
    """Write the pairs that a recipe keeps as Parquet files, in a folder that any reader takes."""
    # msgspec and pyarrow are not in every installation
    from pairmill.ops.release import recipe as recipes
    from pairmill.ops.release import release

    chosen = recipes.load(recipe, recipes.parse_overrides(overrides))
    with admin() as connection, progress_bar() as bar:
        task = bar.add_task("reading pairs", total=None)
        manifest = release.build(
            connection,
            chosen,
            out,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(manifest.as_dict())
    else:
        say(f"{manifest.kept:,} of {manifest.candidates:,} pairs kept, in {out}")


FOLDER = typer.Argument(help="A release's folder.")


@app.command("show")
def show(
    release: Path = FOLDER, as_json: bool = typer.Option(False, "--json", help="The manifest.")
) -> None:
    """Print a release's README, in Markdown with the head of a Hugging Face dataset card."""
    from pairmill.ops.release import folder

    if as_json:
        print_json_text(folder.manifest_text(release).decode())
    else:
        say_page(folder.readme(release))


@app.command("check")
def check(release: Path = FOLDER) -> None:
    """Compare every file of a release with the sha256 in its manifest."""
    from pairmill.ops.release import folder

    found = folder.check(release)
    say(f"{release} is whole: {found.rows:,} pairs in {len(found.parts):,} files")

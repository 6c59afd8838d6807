"""pairmill embeddings: a release's embeddings, as arrays."""

from pathlib import Path

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.output import print_json, progress_bar
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Embeddings.")


@app.command("export")
def export(
    release: Path = typer.Argument(help="A release's folder."),
    out: Path = typer.Argument(help="A folder that does not exist yet, or is empty."),
    layout: str = typer.Option(
        "clip-retrieval", "--format", help="clip-retrieval (.npy and Parquet) or npz (DataComp's)."
    ),
    prefix: str = typer.Option(
        "", "--prefix", help="npz: what stands before _img and _txt; known of B/32 and L/14."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the manifest."),
) -> None:
    """Write the embeddings of a release's rows, except rows removed since."""
    from pairmill.ops.vectors import embeddings  # numpy and pyarrow are not in every installation

    with admin() as connection, progress_bar() as bar:
        task = bar.add_task("reading embeddings", total=None)
        done = embeddings.export(
            connection,
            release,
            out,
            layout=layout,
            prefix=prefix,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(done.as_dict())
        return
    say(f"{done.rows:,} of {done.release['rows']:,} pairs, {done.dims} dims, in {out}")
    if done.left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in done.left_out.items())
        say(f"left out: {reasons}; {out / 'left_out.csv'} names them")
    if done.left_out.get("removed"):
        say(
            "what is left out of a published release as removed tells who asked for that: publish"
            " the export of its next version (`pairmill release update`)",
            err=True,
        )

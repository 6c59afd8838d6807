"""pairmill release show, statistics, card, check: what others read of a finished release."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pairmill.ops.commands.completion import one_of
from pairmill.ops.commands.options import AS_JSON, counted, progress
from pairmill.ops.commands.publication_options import (
    CITE_AS,
    CREATOR,
    CREATOR_URL,
    DATE_PUBLISHED,
    URL,
)
from pairmill.ops.commands.release import app
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder
from pairmill.ops.output import print_json, print_json_text, print_rows
from pairmill.workers.safe_text import say, say_page

# msgspec, numpy and pyarrow are not in every installation
if TYPE_CHECKING:
    from pairmill.ops.release.statistics import Statistics

FOLDER = typer.Argument(help="A release's folder.")
FIRST = 10  # faults that are shown


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
def check(
    release: Path = FOLDER,
    manifest_sha256: str = typer.Option(
        "", "--manifest-sha256", help="That of the manifest, as its publisher names it."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Prove a release, without a database: digests, columns, order, ranges, nulls and counts.

    Reads every byte. Exit code 1 where there is a fault; the first ten are shown. The folder cannot
    vouch for its own manifest: compare the manifest's sha256 with that of a page you trust.
    """
    from pairmill.ops.release.check import Fault
    from pairmill.ops.release.check import check as checked
    from pairmill.ops.release.folder import NAME

    with progress("reading rows") as report:
        found = checked(release, report)
    if manifest_sha256 and manifest_sha256.lower() != found.manifest_sha256:
        other = Fault(NAME, f"its manifest has the sha256 {found.manifest_sha256}, and not yours")
        found.faults.insert(0, other)
    if as_json:
        print_json(found.as_dict(FIRST))
    elif found.faults:
        for fault in found.faults[:FIRST]:
            say(fault.sentence(), err=True)
        more = len(found.faults) - FIRST
        shown = f"; the first {FIRST} are above" if more > 0 else ""
        say(f"{release} is not whole: {counted(len(found.faults), 'fault')}{shown}", err=True)
    else:
        say(
            f"{release} is whole: {counted(found.rows, 'pair')} in {counted(found.files, 'file')};"
            f" sha256 of the manifest: {found.manifest_sha256}"
        )
    if found.faults:
        raise typer.Exit(1)


@app.command("statistics")
def statistics(
    release: Path = FOLDER,
    to: Path | None = typer.Option(
        None, "--to", help="Write statistics.json and a chart a column (SVG) into this new folder."
    ),
    again: bool = typer.Option(
        False, "--again", help="Count the files, also where the release has its statistics."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Nulls, ranges, histograms and commonest values of a release's columns.

    A value that fewer than ten rows have is counted and not named.
    """
    from pairmill.ops.release.cards.card_charts import charts
    from pairmill.ops.release.cards.hub import counted_now, statistics_of
    from pairmill.ops.release.folder import json_page

    found = counted_now(release) if again else statistics_of(release)
    if to is not None:
        with atomic_folder(to) as half:
            (half / "statistics.json").write_text(json_page(found), "utf-8")
            for name, svg in charts(found).items():
                (half / name).write_text(svg, "utf-8")
        say(f"statistics of {release} in {to}", err=True)
    if as_json:
        print_json(found)
    elif to is None:
        _say_statistics(found)


def _say_statistics(found: "Statistics") -> None:
    say(f"{counted(found['rows'], 'row')}, {found['bytes']:,} bytes")
    columns = [
        {"column": name, "nulls": f"{about['nulls']:,}", "least": _short(about.get("min")),
         "most": _short(about.get("max")), "type": about["type"]}
        for name, about in found["columns"].items()
    ]  # fmt: skip
    print_rows(columns, ("column", "nulls", "least", "most", "type"), as_json=False, empty="")
    for name, top in found["top"].items():
        rows = [{name: each["value"], "rows": f"{each['rows']:,}"} for each in top["values"][:10]]
        others = top["others"]
        if rows:
            say("")
            print_rows(rows, (name, "rows"), as_json=False, empty="")
        say(
            f"{name}: {counted(others['rows'], 'row')} of {counted(others['values'], 'other')},"
            f" {counted(top['missing'], 'row')} without"
        )


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.6g}"


@app.command("card")
def card(
    release: Path = FOLDER,
    to: Path = typer.Option(..., "--to", help="A folder that does not exist yet, or is empty."),
    data: str = typer.Option(
        "link",
        "--data",
        help="The Parquet files beside the cards: link (hard links), copy or none.",
        autocompletion=one_of("link", "copy", "none"),
    ),
    date_published: str = DATE_PUBLISHED,
    creator: str = CREATOR,
    creator_url: str = CREATOR_URL,
    url: str = URL,
    cite_as: str = CITE_AS,
) -> None:
    """Write the folder that a hub of data sets wants: cards, charts and checksums beside the data.

    README.md is a Hugging Face card, croissant.json is Croissant 1.1 with RAI 1.0, SHA256SUMS is
    for `sha256sum -c`. The same release and options give the same bytes.
    """
    from pairmill.ops.release.cards.hub import write_card
    from pairmill.ops.release.cards.publication import publication
    from pairmill.ops.release.folder import read_release

    given = {
        "date_published": date_published, "creator": creator, "creator_url": creator_url,
        "url": url, "cite_as": cite_as,
    }  # fmt: skip
    said = publication(read_release(release).manifest, **given)
    if data not in ("link", "copy", "none"):
        raise UserError(f"--data is link, copy or none, and not {data!r:.40}")
    with progress("files") as report:
        names = write_card(release, to, said, data=data, progress=report)  # type: ignore[arg-type]
    say(f"{counted(len(names), 'file')} of cards in {to}")
    if missing := said.missing():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        say(f"croissant.json lacks what Croissant requires: give {options}", err=True)

"""pairmill wat, pairmill crawl: the WAT files to extract."""

import gzip
import re
from functools import partial
from pathlib import Path

import typer

from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.workers.extract.link_kinds import LINK_KINDS, LinkSelection
from pairmill.workers.http.remote_file import RequestFailed, open_remote_file
from pairmill.workers.safe_text import say

wat = typer.Typer(no_args_is_help=True, help="WAT files.")
crawl = typer.Typer(no_args_is_help=True, help="Crawls of Common Crawl.")
LINKS = typer.Option(
    "image",
    "--links",
    help=f"Kinds of links to extract, with commas between: {', '.join(LINK_KINDS)}.",
)  # fmt: skip
BASE = "https://data.commoncrawl.org/"
SHOWN = ("wat_id", "state", "links", "dropped", "duplicates", "pairs", "location", "reason")


def _location(given: str) -> str:
    """A URL as it is; a path made absolute, since workers run elsewhere than this command."""
    if re.match(r"[a-z][a-z0-9+.-]*://", given):
        return given
    path = Path(given).absolute()
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return str(path)


def _add(crawl_name: str | None, locations: list[str], kinds: str) -> None:
    names = [name.strip() for name in kinds.split(",") if name.strip()]
    try:
        LinkSelection(names)
    except ValueError as unknown:
        raise UserError(str(unknown)) from None
    with admin() as connection:
        row = connection.execute(
            "select mill.add_wat(%s, %s, %s)", (crawl_name, locations, names)
        ).fetchone()
    added = row[0] if row else 0
    known = f", {len(locations) - added} were known already" if added < len(locations) else ""
    say(f"added {added} WAT file{'' if added == 1 else 's'}{known}")


@wat.command("add")
def wat_add(
    locations: list[str] = typer.Argument(help="Paths, or http(s) or s3 URLs."),
    kinds: str = LINKS,
) -> None:
    """Add WAT files; one that is known already is left alone."""
    _add(None, [_location(given) for given in locations], kinds)


@wat.command("list")
def wat_list(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """WAT files, with the counts of their extraction."""
    with admin() as connection:
        found = rows(connection, "select * from report.wat order by wat_id")
    print_rows(
        found, SHOWN, as_json=as_json, empty="no WAT files: add some with `pairmill wat add`"
    )


def _read_paths(name: str, paths: str | None) -> list[str]:
    source = paths or f"{BASE}crawl-data/{name}/wat.paths.gz"
    try:
        if re.match(r"https?://", source):
            with open_remote_file(source, proxies=True) as listing:
                data = b"".join(iter(partial(listing.read, 1 << 20), b""))
        else:
            data = Path(source).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        lines = data.decode("utf-8").split()
    except (OSError, EOFError, ValueError, RequestFailed) as error:
        raise UserError(f"cannot read the list of WAT files {source}: {error}") from None
    if not lines:
        raise UserError(f"the list of WAT files {source} is empty")
    return [line if "://" in line else BASE + line.lstrip("/") for line in lines]


@crawl.command("add")
def crawl_add(
    name: str = typer.Argument(help="CC-MAIN-YYYY-WW"),
    paths: str = typer.Option(
        None,
        "--paths",
        help="The crawl's wat.paths.gz: a path or a URL; by default Common Crawl's own.",
    ),
    limit: int = typer.Option(None, "--limit", min=1, help="Only the first so many files."),
    kinds: str = LINKS,
) -> None:
    """Add the WAT files of a crawl."""
    if not re.fullmatch(r"CC-MAIN-\d{4}-\d{2}", name):
        raise UserError(f"{name!r} is no crawl's name: they are like CC-MAIN-2024-51")
    _add(name, _read_paths(name, paths)[:limit], kinds)

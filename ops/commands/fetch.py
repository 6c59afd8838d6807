"""pairmill fetch: the images of a release, or of any list of URLs, into shards."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pairmill.ops.errors import extra
from pairmill.ops.output import print_json

if TYPE_CHECKING:
    from pairmill.ops.fetch.run import FetchRun
    from pairmill.ops.fetch.shards import Folder
    from pairmill.ops.fetch.sources import Source, SourceColumns

INTERRUPTED = 130
PROCESSORS = os.cpu_count() or 1
COUNTS = ("count", "successes", "failed_to_download", "failed_to_resize")

SOURCE = typer.Argument(
    help="A release, a .parquet file or a folder of them, a .csv or .tsv, or a .txt with a URL a"
    " line."
)
OUT = typer.Option(..., "--out", help="The folder of the shards; made, or gone on with.")
URL_COL = typer.Option(None, help="The URLs' column; by default URL, in any case.")
CAPTION_COL = typer.Option(
    None, help="The captions' column; by default TEXT or caption, if there is one."
)
IMAGE_SIZE = typer.Option(
    256, min=16, max=4096, help="Pixels of the short side; no image is enlarged."
)
VERIFY = typer.Option(
    False, "--verify", help="An image whose md5 is not the source's is a failure."
)
RETRY_FAILED = typer.Option(
    False, "--retry-failed", help="Of the shards that are there, fetch again what may pass."
)


def fetch(
    source: Path = SOURCE,
    out: Path = OUT,
    url_col: str | None = URL_COL,
    caption_col: str | None = CAPTION_COL,
    image_size: int = IMAGE_SIZE,
    shard_rows: int = typer.Option(10_000, min=2, help="Rows of a shard."),
    verify: bool = VERIFY,
    retry_failed: bool = RETRY_FAILED,
    concurrency: int = typer.Option(64, min=1, help="Fetches at once."),
    decoders: int = typer.Option(PROCESSORS, min=1, help="Processes that decode."),
    memory: int = typer.Option(256, min=64, help="MB, for the loop and one decoder."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Fetch the images of a release, or of any list of URLs, into webdataset shards.

    The shards are laid out as img2dataset's. A run that was stopped goes on where it was.
    """
    with extra("download,ops"):
        from pairmill.ops.fetch.run import FetchRun, Parameters
        from pairmill.ops.fetch.shards import Folder
        from pairmill.ops.fetch.sources import SourceColumns, open_source
        from pairmill.workers.download.worker import Options
    rows = open_source(source)
    columns = SourceColumns.of(rows, url_col, caption_col)
    parameters = Parameters.of(rows, columns, image_size, shard_rows, verify=verify)
    folder = Folder(out, shard_rows)
    parameters.check(folder, begun=retry_failed)
    if dry_run:
        _plan(rows, columns, folder, retry=retry_failed, as_json=as_json)
        return
    options = Options(concurrency=concurrency, decoders=decoders, memory=memory)
    whole = _run(FetchRun(options, parameters, folder), rows, columns, folder, retry=retry_failed)
    _summarise(folder, as_json=as_json)
    if not whole:
        raise typer.Exit(INTERRUPTED)


def _run(
    run: "FetchRun",
    source: "Source",
    columns: "SourceColumns",
    folder: "Folder",
    *,
    retry: bool,
) -> bool:
    """Fetch the rows that are left; returns whether the run reached its end."""
    from pairmill.ops.fetch.run import failed_shards, new_shards
    from pairmill.workers.download.environment import backend

    client = backend()
    with folder.locked():
        run.parameters.write(folder)
        todo = failed_shards(folder) if retry else new_shards(source, columns, folder)
        with FetchProgress(_left(source, folder, retry=retry)) as shown:
            return run.run(client, todo, shown.row, shown.shard)


def _left(source: "Source", folder: "Folder", *, retry: bool) -> int | None:
    """Rows to fetch, where that is known without reading the source."""
    from pairmill.ops.fetch.run import retryable

    if retry:
        return sum(retryable(folder.stats(number)) for number in folder.numbers())
    rows = source.rows()
    return None if rows is None else rows - _done(folder)["count"]


def _done(folder: "Folder") -> Counter[str]:
    sums: Counter[str] = Counter()
    for number in folder.numbers():
        stats = folder.stats(number)
        sums.update({name: stats[name] for name in COUNTS})
    return sums


def _plan(
    source: "Source", columns: "SourceColumns", folder: "Folder", *, retry: bool, as_json: bool
) -> None:
    """Print the plan of a run, for --dry-run."""
    rows = source.rows()
    if rows is None:
        rows = sum(table.num_rows for table in source.read(0))
    done = _done(folder)["count"]
    left = _left(source, folder, retry=retry) if retry else rows - done
    plan = {
        "rows": rows,
        "shards": -(-rows // folder.rows),
        "rows_done": done,
        "shards_done": len(folder.numbers()),
        "rows_to_fetch": left,
        "url_column": columns.url,
        "caption_column": columns.caption,
    }
    if as_json:
        print_json(plan)
        return
    print(
        f"{rows:,} rows, {plan['shards']:,} shards of {folder.rows:,}; done: {done:,} rows,"
        f" {plan['shards_done']:,} shards; to fetch: {left:,} rows; URLs from {columns.url},"
        f" captions from {columns.caption or 'no column'}"
    )


def _summarise(folder: "Folder", *, as_json: bool) -> None:
    """Print the counts of all shards of the folder."""
    outcomes: Counter[str] = Counter()
    for number in folder.numbers():
        outcomes.update(folder.stats(number)["status_dict"])
    done = _done(folder)
    counts = {name: done[name] for name in COUNTS}
    status = dict(outcomes.most_common())
    if as_json:
        print_json({"shards": len(folder.numbers()), **counts, "status_dict": status})
        return
    print(f"{done['successes']:,} of {done['count']:,} images, in {folder.path}: {_said(status)}")


def _said(outcomes: dict[str, int]) -> str:
    ordered = sorted(outcomes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "no rows"


class FetchProgress:
    """A bar on a terminal, else a line for each shard; on standard error."""

    def __init__(self, total: int | None) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("fetching"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, rate="")

    def __enter__(self) -> "FetchProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def row(self) -> None:
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=1, rate=f"{speed:,.0f}/s" if speed else "")

    def shard(self, number: int, stats: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            said = _said(stats["status_dict"])
            print(f"shard {number:05}: {said}; {stats['duration']:,.0f} s", file=sys.stderr)

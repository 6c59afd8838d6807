"""pairmill index: nearest neighbours among the images of a release."""

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.errors import UserError, extra
from pairmill.ops.output import print_json, print_rows, progress_bar
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.vectors.index_info import IndexInfo, StepProgress

app = typer.Typer(no_args_is_help=True, help="Nearest neighbours among a release's images.")
FOLDER = typer.Argument(metavar="INDEX", help="The index's folder.")
AS_JSON = typer.Option(False, "--json", help="JSON.")


@contextmanager
def _bar() -> Iterator["StepProgress"]:
    """A progress bar that hears Ctrl-C between two pieces of work: within one, usearch may hear it
    and lose it. A second Ctrl-C does not wait."""
    heard = threading.Event()

    def hear(number: int, frame: object) -> None:
        if heard.is_set():
            raise KeyboardInterrupt
        heard.set()

    before = signal.signal(signal.SIGINT, hear)
    try:
        with progress_bar() as bar:
            task = bar.add_task("reading", total=None)

            def report(what: str, done: int, total: int) -> None:
                if heard.is_set():
                    raise KeyboardInterrupt
                bar.update(task, description=what, completed=done, total=total)

            yield report
    finally:
        signal.signal(signal.SIGINT, before)


@app.command("build")
def build(
    release: Path = typer.Argument(help="A release's folder, or that of an export."),
    out: Path = typer.Option(..., "--out", help="A folder that does not exist yet, or is empty."),
    kind: str = typer.Option(
        "auto", "--kind", help="hnsw (a graph, in memory), ivfpq (lists, on the disk), or auto."
    ),
    memory: str | None = typer.Option(
        None, "--memory", help="What a build may take: 8GB; half of the machine's by default."
    ),
    wanted: float = typer.Option(
        0.95, "--recall", min=0.5, max=0.999, help="recall@10 that queries are to reach."
    ),
    shard: str = typer.Option(
        "1/1", "--shard", help="i/n: the i-th of n parts alone, for `index merge`."
    ),
    queries: int = typer.Option(
        200, "--queries", min=0, help="By how many images, and texts, recall is measured; 0: not."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Index a release's image embeddings, and measure recall@10 against exact search."""
    from pairmill.ops.release.folder import is_release
    from pairmill.ops.vectors import embeddings

    with extra("index"):
        from pairmill.ops.vectors import index, index_build, index_plan
    limit = None if memory is None else index_plan.parsed_size(memory)
    part = _part(shard)

    with _bar() as report:

        def indexed(export: Path) -> "IndexInfo":
            try:
                return index.build(
                    export, out, kind=kind, memory=limit, wanted=wanted, queries=queries,
                    part=part, progress=report,
                )  # fmt: skip
            except KeyboardInterrupt:
                if index_build.is_unfinished(out):
                    say("finished shards are kept: the same command goes on with them", err=True)
                raise

        if is_release(release):
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
            # the export is as large as the index: beside it there is room
            with tempfile.TemporaryDirectory(dir=out.absolute().parent) as beside:
                export = Path(beside) / "export"
                with admin() as connection:
                    embeddings.export(
                        connection,
                        release,
                        export,
                        progress=lambda done, total: report("reading embeddings", done, total),
                    )
                info = indexed(export)
        else:
            info = indexed(release)
    if as_json:
        print_json(info.as_dict())
        return
    _say_built(info, out)


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not slash or not (number + parts).isascii() or not (number + parts).isdigit():
        raise UserError(f"--shard is i/n, as in 2/8, and not {text!r}")
    return int(number), int(parts)


def _say_built(info: "IndexInfo", out: Path) -> None:
    shards = "" if len(info.shards) == 1 else f", {len(info.shards)} shards"
    distinct = f"{info.vectors:,} distinct vectors of {info.dims} dims{shards}"
    say(f"{info.samples:,} samples, {distinct}, in {out}")
    say(f"{info.kind}: {info.why}")
    recall = info.recall_at_10
    if not recall["queries"]:
        return
    say(
        f"recall@10 against exact search, {recall['queries']} queries of each kind:"
        f" by image {recall['image']:.3f}, by text {recall['text']:.3f}"
    )
    if min(recall["image"], recall["text"]) < info.wanted:
        say(
            f"that is less than the {info.wanted} that was wanted, at the most candidates and lists"
            " a query: --kind hnsw finds more, in more memory",
            err=True,
        )


@app.command("merge")
def merge(
    parts: list[Path] = typer.Argument(help="Indexes of parts of one release (`build --shard`)."),
    out: Path = typer.Option(..., "--out", help="A folder that does not exist yet, or is empty."),
    as_json: bool = AS_JSON,
) -> None:
    """Make one index of the shards of several; on one disk their files are linked."""
    with extra("index"):
        from pairmill.ops.vectors import index
    info = index.merge(parts, out)
    if as_json:
        print_json(info.as_dict())
        return
    _say_built(info, out)


@app.command("query")
def query(
    folder: Path = FOLDER,
    text: str | None = typer.Option(None, "--text", help="Images that a text describes."),
    image: Path | None = typer.Option(None, "--image", help="Images like that of a file."),
    sample_id: int | None = typer.Option(None, "--sample-id", help="Images like that of a sample."),
    count: int = typer.Option(10, "--count", "-k", min=1, max=1000, help="How many."),
    model: str | None = typer.Option(
        None, "--model", help="--text, --image: as in `work score`; the index's by default."
    ),
    pretrained: str = typer.Option("", "--pretrained", help="As in `work score`."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, or auto."),
    as_json: bool = AS_JSON,
) -> None:
    """Find images: by a text, by an image, or like one of the index."""
    if [text, image, sample_id].count(None) != 2:
        raise UserError("name one of --text, --image and --sample-id")
    with extra("index"):
        from pairmill.ops.vectors.opened import nearest, open_index
    opened = open_index(folder)
    if sample_id is not None:
        vector = opened.vector(sample_id)
    else:
        with extra("score"):
            from pairmill.ops.vectors import query_vectors
        loaded = query_vectors.load(opened.info.model, model, pretrained, device)
        if image is not None:
            vector = query_vectors.of_image(loaded, image)
        else:
            vector = query_vectors.of_text(loaded, text or "")
    found = [asdict(each) for each in nearest(opened, vector, count, but=sample_id)]
    shown = [each | {"similarity": f"{each['similarity']:.4f}"} for each in found]
    print_rows(
        found if as_json else shown,
        ("sample_id", "similarity", "duplicates", "url", "text"),
        as_json=as_json,
        empty="the index is empty",
    )


@app.command("remove")
def remove(
    folder: Path = FOLDER,
    ids: list[int] = typer.Option(
        [], "--sample-id", help="A sample to delete; without it, all that a removal names now."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would do; change nothing."),
    compact: bool = typer.Option(
        False,
        "--compact",
        help="Also make the file anew, without their vectors: as long as a build.",
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Delete the samples that the database's removals name, or these, from an index."""
    with extra("index"):
        from pairmill.ops.vectors import index
    from pairmill.ops.vectors import embeddings

    wanted = list(ids)
    if not wanted:
        with admin() as connection:
            for held in index.ids_by_shard(folder):
                wanted += embeddings.removed_of(connection, held.tolist())
    with _bar() as report:
        deleted, unknown = index.remove(
            folder, wanted, compact=compact, dry_run=dry_run, progress=report
        )
    left = index.read_info(folder).samples - (deleted if dry_run else 0)
    if as_json:
        print_json({"deleted": deleted, "not_in_index": unknown, "left": left, "dry_run": dry_run})
        return
    done = "would be deleted" if dry_run else "deleted"
    known = f", {unknown:,} not in the index" if unknown else ""
    say(f"{deleted:,} {done}{known}; {left:,} are left")

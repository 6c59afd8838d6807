"""pairmill fetch: the images of a release, or of any list of URLs, into shards."""

import math
import os
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pairmill.ops.errors import UserError, extra
from pairmill.ops.fetch.interruption import interruptible
from pairmill.ops.output import print_json
from pairmill.workers.safe_text import say
from pairmill.workers.tally import many

if TYPE_CHECKING:
    from pairmill.ops.fetch.run import FetchRun
    from pairmill.ops.fetch.shards import Folder
    from pairmill.ops.fetch.sources import Source
    from pairmill.workers.download.rendition import RenditionSpec

INTERRUPTED = 130
PROCESSORS = os.cpu_count() or 1


class ResizeMode(StrEnum):
    """What --image-size is of; the last two are img2dataset's names."""

    KEEP_RATIO = "keep_ratio"
    LARGEST = "largest"
    BORDER = "border"
    CROP = "crop"
    NO = "no"
    KEEP_RATIO_LARGEST = "keep_ratio_largest"
    CENTER_CROP = "center_crop"

    @property
    def mode(self) -> str:
        same = {self.KEEP_RATIO_LARGEST: self.LARGEST, self.CENTER_CROP: self.CROP}
        return str(same.get(self, self))


class EncodeFormat(StrEnum):
    JPG = "jpg"
    PNG = "png"
    WEBP = "webp"


class OutputFormat(StrEnum):
    WEBDATASET = "webdataset"
    FILES = "files"
    PARQUET = "parquet"


SOURCE = typer.Argument(
    help="A release, or a .parquet, .csv, .tsv, .json, .jsonl, or .txt with a URL a line; a folder"
    " of such files, or a URL of one (s3://…)."
)
OUT = typer.Option(..., "--out", help="The folder of the shards; made, or gone on with.")
URL_COL = typer.Option(None, help="The URLs' column; by default URL, in any case.")
CAPTION_COL = typer.Option(
    None, help="The captions' column; by default TEXT or caption, if there is one."
)
KEY_COL = typer.Option(
    None, help="The column of the samples' keys, as DataComp's uid; by default they are counted."
)
BBOX_COL = typer.Option(
    None, help="The column of boxes that are blurred, as DataComp's face_bboxes."
)
RESIZE_MODE = typer.Option(
    "keep_ratio",
    help="The image size is of the short side (keep_ratio), the long side (largest), both, with a"
    " white border (border) or cut from the centre (crop), or not used (no).",
)
IMAGE_SIZE = typer.Option(256, min=16, max=4096, help="Pixels, see --resize-mode.")
ENLARGE = typer.Option(
    False, "--enlarge/--resize-only-if-bigger", help="Enlarge what is smaller than --image-size."
)
ENCODE_FORMAT = typer.Option("jpg", help="The images' format.")
ENCODE_QUALITY = typer.Option(
    None, help="1 to 100, by default 88; of png zlib's level, 0 to 9, by default 6."
)
SKIP_REENCODE = typer.Option(
    False,
    "--skip-reencode",
    help="Keep the original's bytes where it has the format, and no pixel has to change.",
)
OUTPUT_FORMAT = typer.Option("webdataset", help="Tar files, folders of files, or a column.")
MIN_IMAGE_SIZE = typer.Option(0, min=0, help="An original of a shorter side is too_small.")
MAX_IMAGE_AREA = typer.Option(
    None, min=1, help="An original of more pixels is too_many_pixels; at most what --memory allows."
)
MAX_ASPECT_RATIO = typer.Option(10.0, min=1.0, help="A longer or taller original is too_thin.")
EXTRACT_EXIF = typer.Option(False, "--extract-exif", help="Add a column exif, JSON.")
SHARD_ROWS = typer.Option(10_000, min=2, help="Rows of a shard.")
SHARD_DIGITS = typer.Option(5, min=1, max=18, help="Digits of a shard's number.")
VERIFY = typer.Option(
    False, "--verify", help="An image whose md5 or sha256 is not the source's is a failure."
)
RETRY_FAILED = typer.Option(
    False, "--retry-failed", help="Of the shards that are there, fetch again what may pass."
)
TIMEOUT = typer.Option(30.0, min=1.0, max=600.0, help="Seconds for a URL, with its redirects.")


def fetch(
    source: str = SOURCE,
    out: Path = OUT,
    url_col: str | None = URL_COL,
    caption_col: str | None = CAPTION_COL,
    key_col: str | None = KEY_COL,
    bbox_col: str | None = BBOX_COL,
    resize_mode: ResizeMode = RESIZE_MODE,
    image_size: int = IMAGE_SIZE,
    enlarge: bool = ENLARGE,
    encode_format: EncodeFormat = ENCODE_FORMAT,
    encode_quality: int | None = ENCODE_QUALITY,
    skip_reencode: bool = SKIP_REENCODE,
    min_image_size: int = MIN_IMAGE_SIZE,
    max_image_area: int | None = MAX_IMAGE_AREA,
    max_aspect_ratio: float = MAX_ASPECT_RATIO,
    extract_exif: bool = EXTRACT_EXIF,
    output_format: OutputFormat = OUTPUT_FORMAT,
    shard_rows: int = SHARD_ROWS,
    shard_digits: int = SHARD_DIGITS,
    verify: bool = VERIFY,
    retry_failed: bool = RETRY_FAILED,
    timeout: float = TIMEOUT,
    concurrency: int = typer.Option(64, min=1, help="Fetches at once."),
    decoders: int = typer.Option(PROCESSORS, min=1, help="Processes that decode."),
    memory: int = typer.Option(256, min=64, help="MB, for the loop and one decoder."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Fetch the images of a release, or of any list of URLs, into shards.

    The shards are laid out as img2dataset's. A run that was stopped goes on where it was.
    """
    with extra("download,ops"):
        from pairmill.ops.fetch.parameters import Parameters
        from pairmill.ops.fetch.run import FetchRun
        from pairmill.ops.fetch.samples import Layout
        from pairmill.ops.fetch.shards import Folder
        from pairmill.ops.fetch.sources import SourceColumns, open_source
        from pairmill.workers.download.fetcher import Limits
        from pairmill.workers.download.worker import Options
    rendition = _rendition(
        encode_format,
        encode_quality,
        max_aspect_ratio,
        mode=resize_mode.mode,
        size=image_size,
        enlarge=enlarge,
        skip_reencode=skip_reencode,
        min_side=min_image_size,
        max_area=max_image_area,
        exif=extract_exif,
    )
    rows = open_source(source)
    columns = SourceColumns.of(rows, url_col, caption_col)
    layout = Layout(
        str(output_format), str(encode_format), columns.caption is not None, extract_exif,
        shard_digits,
    )  # fmt: skip
    parameters = Parameters.of(
        rows, columns, rendition, layout,
        key=key_col, boxes=bbox_col, shard_rows=shard_rows, verify=verify,
    )  # fmt: skip
    folder = Folder(out, shard_rows, layout)
    parameters.check(folder, begun=retry_failed)
    options = Options(
        concurrency=concurrency, decoders=decoders, memory=memory, limits=Limits(total=timeout)
    )
    run = FetchRun(options, parameters, folder)
    if dry_run:
        _plan(rows, run, folder, retry=retry_failed, as_json=as_json)
        return
    before = len(folder.numbers())
    with interruptible():
        whole = _run(run, rows, folder, retry=retry_failed)
        _summarise(folder, whole=whole, as_json=as_json)
    if not whole:
        _say_interrupted(folder, before, retry=retry_failed)
        raise typer.Exit(INTERRUPTED)


def _rendition(
    encode_format: EncodeFormat, quality: int | None, max_aspect: float, **others: Any
) -> "RenditionSpec":
    from pairmill.workers.download.rendition import DEFAULT_QUALITY, RenditionSpec

    if math.isnan(max_aspect):
        raise UserError("--max-aspect-ratio is a number, or inf for none")
    try:
        return RenditionSpec(
            format=str(encode_format),
            quality=DEFAULT_QUALITY[encode_format] if quality is None else quality,
            max_aspect=None if math.isinf(max_aspect) else max_aspect,
            **others,
        )
    except ValueError as error:
        raise UserError(f"--encode-quality: {error}") from None


def _run(run: "FetchRun", source: "Source", folder: "Folder", *, retry: bool) -> bool:
    """Fetch the rows that are left; returns whether the run reached its end."""
    from pairmill.ops.fetch.fetch_progress import FetchProgress
    from pairmill.ops.fetch.run import failed_shards, new_shards
    from pairmill.workers.download.environment import backend

    client, parameters = backend(), run.parameters
    with folder.locked():
        parameters.write(folder)
        todo = (
            failed_shards(parameters, folder) if retry else new_shards(source, parameters, folder)
        )
        try:
            with FetchProgress(_left(source, folder, retry=retry)) as shown:
                return run.run(client, todo, shown.row, shown.shard, shown.say)
        except KeyboardInterrupt:  # before its loop had begun, or behind its end
            return False


def _say_interrupted(folder: "Folder", before: int, *, retry: bool) -> None:
    """before: shards of earlier runs."""
    under_way = "is as it was" if retry else "has nothing kept"
    done, shards = _done(folder), len(folder.numbers())
    earlier = f" ({before:,} of them before)" if before else ""
    say(
        f"interrupted: {many(shards, 'shard')}{earlier} with {many(done['count'], 'row')} and"
        f" {many(done['successes'], 'image')} lie whole in {folder.path}; the shard that was being"
        f" fetched {under_way}; the same command goes on with it",
        err=True,
    )


def _left(source: "Source", folder: "Folder", *, retry: bool) -> int | None:
    """Rows to fetch, where that is known without reading the source."""
    from pairmill.ops.fetch.run import retryable

    if retry:
        return sum(retryable(folder.stats(number)) for number in folder.numbers())
    rows = source.rows()
    return None if rows is None else rows - _done(folder)["count"]


def _done(folder: "Folder") -> dict[str, int]:
    """Sums over all shards of the folder."""
    from pairmill.ops.fetch.samples import COUNTS

    stats = [folder.stats(number) for number in folder.numbers()]
    return {name: sum(shard[name] for shard in stats) for name in COUNTS}


def _plan(
    source: "Source", run: "FetchRun", folder: "Folder", *, retry: bool, as_json: bool
) -> None:
    """Print the plan of a run, for --dry-run."""
    parameters = run.parameters
    columns = parameters.columns
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
        "key_column": parameters.key,
        "bbox_column": parameters.boxes,
    }
    if as_json:
        print_json(plan)
        return
    say(
        f"{rows:,} rows, {plan['shards']:,} shards of {folder.rows:,}; done: {done:,} rows,"
        f" {plan['shards_done']:,} shards; to fetch: {left:,} rows; URLs from {columns.url},"
        f" captions from {columns.caption or 'no column'}"
    )


def _summarise(folder: "Folder", *, whole: bool, as_json: bool) -> None:
    """Print the counts of all shards of the folder. whole: whether the run reached its end."""
    from pairmill.ops.fetch.fetch_progress import said

    outcomes: Counter[str] = Counter()
    for number in folder.numbers():
        outcomes.update(folder.stats(number)["status_dict"])
    done = _done(folder)
    status = dict(outcomes.most_common())
    if as_json:
        shards = {"shards": len(folder.numbers()), "interrupted": not whole}
        print_json({**shards, **done, "status_dict": status})
        return
    say(f"{done['successes']:,} of {done['count']:,} images, in {folder.path}: {said(status)}")

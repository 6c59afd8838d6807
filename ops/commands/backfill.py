"""pairmill model backfill: pairs that were downloaded before a model was added."""

import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import psycopg
import typer
from rich.filesize import decimal

from pairmill.ops.admin import models
from pairmill.ops.admin.backfill import Backfill, queue
from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.url_retries import batch_range
from pairmill.ops.commands.completion import known_models
from pairmill.ops.commands.options import say_detached
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, progress_bar
from pairmill.workers.safe_text import say


def backfill(
    name: str = typer.Argument(
        help="As `pairmill model list` names it; or its digest.", autocompletion=known_models
    ),
    batches: str = typer.Option("", "--batches", help="FIRST-LAST, or one number; all by default."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would queue, and its cost."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = typer.Option(False, "--json", help="A JSON object; with --yes or --dry-run."),
) -> None:
    """Queue the pairs that were downloaded before a model was added, to be scored by it too.

    A tagger that reads embeddings needs no download. For a CLIP model, and a tagger of pixels, the
    images are fetched again, for their thumbnails alone: the downloads, scores and tags that count
    stay as they are, also where a host is down today. Other downloads go first.
    """
    first, last = batch_range(batches)
    if as_json and not (yes or dry_run):
        raise UserError("--json asks no question: give --yes or --dry-run too")
    with admin() as connection:
        model = models.one(connection, name)
        say_detached(connection, first, last)
        plan = partial(_queue, connection, model, first, last)
        planned = plan(dry_run=True) if not yes or dry_run else None
        if planned and not as_json:
            _say_backfill(model["name"], planned, dry_run=True)
        if not dry_run:
            if planned and not (planned.batches or planned.score_tasks):
                return
            if planned and not (sys.stdin.isatty() and typer.confirm("Do it?")):
                raise UserError("not confirmed, nothing was done: --yes does it without a question")
            planned = plan(dry_run=False)
            if not as_json:
                _say_backfill(model["name"], planned, dry_run=False)
    if as_json and planned:
        about = {"model": model["name"], "digest": model["digest"], "dry_run": dry_run}
        print_json(about | asdict(planned))


def _queue(
    connection: psycopg.Connection,
    model: dict[str, Any],
    first: int,
    last: int,
    *,
    dry_run: bool,
) -> Backfill:
    with progress_bar() as bar:
        task = bar.add_task("looking at batches", total=None)
        return queue(
            connection, model, first, last, dry_run=dry_run,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def _say_backfill(name: str, found: Backfill, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if found.batches:
        rate = (
            "no URL was downloaded in the last day, so nobody knows how long that takes"
            if found.days is None
            else f"at the last day's rate that takes {_span(found.days)}"
        )
        say(
            f"{name}: {found.urls:,} images of {found.batches:,} batches {would}queued to be"
            f" fetched again and scored, {decimal(found.bytes)} when they came first; {rate}"
        )
    if found.score_tasks:
        say(f"{name}: {found.score_tasks:,} score tasks {would}queued, which need no download")
    if not (found.batches or found.score_tasks):
        say(f"{name}: nothing to queue")
    if found.busy:
        say(
            f"{found.busy:,} batches left out: their backfill, or their scoring, is under way or"
            " parked"
        )
    if found.in_vain:
        say(f"{found.in_vain:,} URLs left out: fetched again before, they gave no such image")
    if (found.batches or found.score_tasks) and not found.has_worker:
        say(
            f"no worker with the weights of {name} was seen in the last ten minutes: without one"
            " the thumbnails fill the ring, and all downloads stop"
        )


def _span(days: float) -> str:
    for name, length in (("days", 1), ("hours", 24), ("minutes", 24 * 60)):
        if days * length >= 1:
            return f"{days * length:,.1f} {name}"
    return "less than a minute"

"""pairmill worker show-name: whether a worker is named on the public page; its owner decides."""

import os

import typer

from pairmill.ops.commands.completion import one_of
from pairmill.ops.commands.people import worker
from pairmill.ops.errors import UserError
from pairmill.workers.dsn import WORKER_DSN, checked
from pairmill.workers.queue import Queue
from pairmill.workers.safe_text import say


@worker.command("show-name")
def worker_show_name(
    answer: str = typer.Argument(
        metavar="yes|no", help="Whether to be named.", autocompletion=one_of("yes", "no")
    ),
    dsn: str = typer.Option(None, "--dsn", help=f"The worker's DSN; {WORKER_DSN} by default."),
) -> None:
    """Be named on the public page, or no more: its leaderboard, and a page of the worker's own.

    The choice of whoever has the worker's DSN. Without it a worker is counted there among others.
    """
    if answer not in ("yes", "no"):
        raise UserError(f"show-name is yes or no, not {answer!r}")
    queue = Queue(checked(dsn or os.environ.get(WORKER_DSN, "")), patience=0.0)
    try:
        name = queue.show_name(answer == "yes")
    finally:
        queue.close()
    if answer == "yes":
        say(f"{name} is named on the public page from its next snapshot on")
    else:
        say(f"{name} is named nowhere")

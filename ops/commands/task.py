"""pairmill task: the queue."""

import typer

from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Tasks of the queue.")
SHOWN = ("task_id", "kind", "state", "wat_id", "batch_id", "attempts", "worker", "reason")


@app.command("list")
def task_list(
    state: str = typer.Option(None, "--state", help="ready, leased, submitted, done or discarded."),
    kind: str = typer.Option(None, "--kind", help="extract, download, score …"),
    limit: int = typer.Option(
        100, "--limit", min=1, help="At most so many, the newest change first."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON array."),
) -> None:
    """Tasks, with who holds them and why they failed."""
    with admin() as connection:
        found = rows(
            connection,
            "select * from report.task"
            " where state = coalesce(%s, state) and kind = coalesce(%s, kind)"
            " order by changed_at desc, task_id limit %s",
            state,
            kind,
            limit,
        )
    print_rows(found, SHOWN, as_json=as_json, empty="no such tasks")


@app.command("retry")
def task_retry(
    tasks: list[int] = typer.Argument(None, help="Numbers of discarded tasks."),
    every: bool = typer.Option(False, "--all", help="Every discarded task."),
) -> None:
    """Queue discarded tasks again. One whose thumbnails are gone is downloaded again."""
    if bool(tasks) == every:
        raise UserError(
            "name the discarded tasks (`pairmill task list --state discarded`), or say --all"
        )
    with admin() as connection:
        if every:
            discarded = rows(
                connection,
                "select task_id from report.task where state = 'discarded' order by task_id",
            )
            tasks = [row["task_id"] for row in discarded]
        for number in tasks:
            row = connection.execute("select mill.retry_task(%s)", (number,)).fetchone()
            if not row or row[0] is None:
                raise UserError(f"task {number} is not discarded")
            say(f"task {number}: queued again ({row[0]})")
    if every and not tasks:
        say("no task is discarded")


@app.command("discard")
def task_discard(
    number: int = typer.Argument(help="A ready or leased task."),
    reason: str = typer.Option("discarded by an admin", "--reason", help="Shown by `task list`."),
) -> None:
    """Take a task out of the queue; its holder's next call is refused."""
    with admin() as connection:
        row = connection.execute("select mill.discard_task(%s, %s)", (number, reason)).fetchone()
    if not row or not row[0]:
        raise UserError(f"task {number} is neither ready nor leased")
    say(f"task {number} is discarded")

"""pairmill gold-question, pairmill replication: checks of workers, and their results."""

import re
from pathlib import Path

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

gold_question = typer.Typer(
    no_args_is_help=True, help="URLs with known answers, hidden among those of a download batch."
)
replication = typer.Typer(
    no_args_is_help=True, help="Repeats of samples of what workers downloaded."
)
JSON = typer.Option(False, "--json", help="A JSON array.")
DEAD = "dead"


def read_gold_questions(text: str) -> list[tuple[str, bytes | None]]:
    """The gold questions of a file: (URL, 32 bytes or None). A line is a URL, and the sha256 of its
    image or the word dead.

    Raises UserError, naming the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        url, _, answer = line.strip().rpartition(" ")
        url = url.strip()
        if not re.match(r"https?://[^/\s]+\S*$", url) or len(url) > 2048:
            raise UserError(f"line {number} is not `URL SHA256` or `URL {DEAD}`: {line[:100]!r}")
        if answer != DEAD and not re.fullmatch(r"[0-9a-fA-F]{64}", answer):
            raise UserError(f"line {number}: {answer[:80]!r} is no sha256 and not the word {DEAD}")
        found.append((url, None if answer == DEAD else bytes.fromhex(answer)))
    return found


@gold_question.command("add")
def add(
    file: Path = typer.Argument(help="Lines of a URL and its image's sha256, or the word dead."),
) -> None:
    """Add gold questions of your own; a URL that is there already gets the new answer.

    Those that you add stay until `gold-question remove`; workers who remember URLs come to know
    them, so change them now and then. Others are drawn by themselves from what proven workers
    download.
    """
    try:
        gold_questions = read_gold_questions(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    with admin() as connection, connection.transaction():
        connection.cursor().executemany(
            "insert into mill.gold_question (url, sha256, by_admin) values (%s, %s, true)"
            " on conflict (url) do update"
            " set sha256 = excluded.sha256, dhash = null, by_admin = true",
            gold_questions,
        )
    say(f"{len(gold_questions):,} gold questions added")


@gold_question.command("list")
def listing(as_json: bool = JSON) -> None:
    """The gold questions, and how often each was answered."""
    with admin() as connection:
        found = rows(
            connection,
            f"select url, coalesce(encode(sha256, 'hex'), '{DEAD}') as answer, by_admin, answers,"
            " added_at from mill.gold_question order by gold_question_id",
        )
    print_rows(
        found, ("url", "answer", "by_admin", "answers"), as_json=as_json,
        empty="no gold questions: add some with `pairmill gold-question add FILE`",
    )  # fmt: skip


@gold_question.command("remove")
def remove(url: str = typer.Argument(help="Its URL, or the word all.")) -> None:
    """Take a gold question out. Leases that hold it lose nothing."""
    with admin() as connection:
        gone = connection.execute(
            "delete from mill.gold_question where %(url)s in (url, 'all')", {"url": url}
        ).rowcount
    if not gone:
        raise UserError(f"there is no gold question {url}: see `pairmill gold-question list`")
    say(f"{gone:,} gold questions removed")


@replication.command("list")
def checks(
    worker: str = typer.Option("", "--worker", help="Of this worker only."),
    as_json: bool = JSON,
) -> None:
    """Checks, newest first: the worker checked, the one that repeated its downloads, and their
    agreement."""
    with admin() as connection:
        found = rows(
            connection,
            "select * from report.replication where %s in (worker, '')"
            " order by replication_id desc limit 1000",
            worker,
        )
    print_rows(
        found, ("worker", "batch_id", "kind", "state", "compared", "agreed", "decided_at"),
        as_json=as_json, empty="no checks yet: they come with the downloads of unproven workers",
    )  # fmt: skip

"""pairmill canary, pairmill check: checks of workers, and their results."""

import re
from pathlib import Path

import typer

from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows

canary = typer.Typer(
    no_args_is_help=True, help="URLs with known answers, hidden among those of a download batch."
)
check = typer.Typer(no_args_is_help=True, help="Checks of what workers downloaded.")
JSON = typer.Option(False, "--json", help="A JSON array.")
DEAD = "dead"


def read_canaries(text: str) -> list[tuple[str, bytes | None]]:
    """The canaries of a file of lines, each a URL and the sha256 of its image, or the word dead:
    (URL, 32 bytes or None).

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


@canary.command("add")
def add(
    file: Path = typer.Argument(help="Lines of a URL and its image's sha256, or the word dead."),
) -> None:
    """Add canaries of your own; a URL that is there already gets the new answer.

    Those that you add stay until `canary remove`; workers who remember URLs come to know them, so
    change them now and then. Others are drawn by themselves from what proven workers download.
    """
    try:
        canaries = read_canaries(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    with admin() as connection, connection.transaction():
        connection.cursor().executemany(
            "insert into mill.canary (url, sha256, by_admin) values (%s, %s, true)"
            " on conflict (url) do update"
            " set sha256 = excluded.sha256, dhash = null, by_admin = true",
            canaries,
        )
    print(f"{len(canaries):,} canaries added")


@canary.command("list")
def listing(as_json: bool = JSON) -> None:
    """The canaries, and how often each was answered."""
    with admin() as connection:
        found = rows(
            connection,
            f"select url, coalesce(encode(sha256, 'hex'), '{DEAD}') as answer, by_admin, answers,"
            " added_at from mill.canary order by canary_id",
        )
    print_rows(
        found, ("url", "answer", "by_admin", "answers"), as_json=as_json,
        empty="no canaries: add some with `pairmill canary add FILE`",
    )  # fmt: skip


@canary.command("remove")
def remove(url: str = typer.Argument(help="Its URL, or the word all.")) -> None:
    """Take a canary out. Leases that hold it lose nothing."""
    with admin() as connection:
        gone = connection.execute(
            "delete from mill.canary where %(url)s in (url, 'all')", {"url": url}
        ).rowcount
    if not gone:
        raise UserError(f"there is no canary {url}: see `pairmill canary list`")
    print(f"{gone:,} canaries removed")


@check.command("list")
def checks(
    worker: str = typer.Option("", "--worker", help="Of this worker only."),
    as_json: bool = JSON,
) -> None:
    """Checks, newest first: the worker checked, the one that repeated its downloads, and their
    agreement."""
    with admin() as connection:
        found = rows(
            connection,
            "select * from report.recheck where %s in (worker, '')"
            " order by recheck_id desc limit 1000",
            worker,
        )
    print_rows(
        found, ("worker", "batch_id", "kind", "state", "compared", "agreed", "decided_at"),
        as_json=as_json, empty="no checks yet: they come with the downloads of unproven workers",
    )  # fmt: skip

"""The command `pairmill`: its groups, its exit codes and its error messages.

Exit codes: 0 done, 1 it could not be done (one sentence on standard error), 2 wrong usage,
130 interrupted.
"""

import io
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psycopg
import typer

from pairmill import __version__
from pairmill.ops.commands import (
    archive,
    database,
    dedupe,
    doctor,
    embeddings,
    fetch,
    index,
    item,
    model,
    people,
    people_shown,  # noqa: F401 - its command is people's
    release,
    release_card,  # noqa: F401 - its commands are release's
    release_folder,  # noqa: F401 - its commands are release's
    release_subset,  # noqa: F401 - its commands are release's
    removal,
    removal_list,  # noqa: F401 - its commands are removal's
    removal_request,  # noqa: F401 - its commands are removal's
    researcher,
    retry,
    source,
    status,
    task,
    text_safety,
    trust,
    web,
    web_admin,  # noqa: F401 - its commands are web's
    web_explore,  # noqa: F401 - its commands are web's
    web_knn,  # noqa: F401 - its commands are web's
    web_live,  # noqa: F401 - its commands are web's
    web_logins,  # noqa: F401 - its commands are web's
    work,
)  # fmt: skip
from pairmill.ops.errors import UserError
from pairmill.ops.server.programs import EmbeddedError
from pairmill.workers.errors import WorkerError
from pairmill.workers.safe_text import say, say_traceback

app = typer.Typer(
    name="pairmill",
    help="Make image-text datasets from Common Crawl, with PostgreSQL at the centre.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(database.app, name="db")
app.add_typer(source.wat, name="wat")
app.add_typer(source.crawl, name="crawl")
app.add_typer(work.app, name="work")
app.add_typer(people.worker, name="worker")
app.add_typer(researcher.app, name="researcher")
app.add_typer(model.app, name="model")
app.add_typer(task.app, name="task")
app.add_typer(item.app, name="item")
app.add_typer(trust.gold_question, name="gold-question")
app.add_typer(trust.replication, name="replication")
app.add_typer(removal.app, name="removal")
app.add_typer(dedupe.app, name="dedupe")
app.add_typer(archive.app, name="archive")
app.add_typer(release.app, name="release")
app.add_typer(embeddings.app, name="embeddings")
app.add_typer(index.app, name="index")
app.add_typer(text_safety.app, name="text-safety")
app.add_typer(web.app, name="web")
app.command("migrate")(database.migrate)
app.command("retry")(retry.retry)
app.command("status")(status.status)
app.command("why")(release.why)
app.command("doctor")(doctor.doctor)
app.command("fetch")(fetch.fetch)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"pairmill {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options of the command itself."""


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command; every foreseen error becomes one sentence and an exit code."""
    try:
        command()
    except (UserError, WorkerError, EmbeddedError) as problem:
        say(f"pairmill: {' '.join(str(problem).split())}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        say(f"pairmill: {error.name} is not installed: pip install 'pairmill[ops]'", err=True)
        sys.exit(1)
    except psycopg.Error as error:
        say(f"pairmill: {_of_database(error)}", err=True)
        sys.exit(1)
    except UnicodeEncodeError as error:  # an argument's octets, which are lone surrogates
        say(f"pairmill: {error.object!r} is not UTF-8: the database takes no other text", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _of_database(error: psycopg.Error) -> str:
    """What the database says; of a text that its tables do not take, which."""
    _, control, column = (error.diag.constraint_name or "").partition("no control characters in ")
    if control:
        return (
            f"{column} of a {error.diag.table_name} may hold no control character, such as a line"
            " end: give it without"
        )
    return f"the database says: {' '.join(str(error).split())}"


def find_roots() -> None:
    """Set the root certificates for sslrootcert=system: the OpenSSL in psycopg's wheels looks in a
    folder of its build machine, and Python knows this system's."""
    known = ssl.get_default_verify_paths()
    if known.cafile:
        os.environ.setdefault(known.openssl_cafile_env, known.cafile)
    if known.capath and any(Path(known.capath).iterdir()):
        os.environ.setdefault(known.openssl_capath_env, known.capath)


def main() -> NoReturn:
    """The entry point of `pairmill`."""
    find_roots()
    sys.excepthook = lambda kind, error, trace: say_traceback(error)
    if isinstance(sys.stdout, io.TextIOWrapper):  # of another encoding than UTF-8, an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    run(app)


if __name__ == "__main__":
    main()

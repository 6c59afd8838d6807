"""The demo: the real workers, as processes of their own, from a WAT file to a release.

Without options it serves a small web site of its own on loopback and makes a WAT file of it,
so it needs no network. It uses the ordinary database (DATABASE_URL, or the embedded one of
PAIRMILL_HOME): `pairmill status` shows it afterwards, and a second run adds nothing.
`--until download` ends before scoring, the only step that needs torch; a later run goes on there.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
import typer
from rich.table import Table

from pairmill import migrations
from pairmill.ops.admin import migrate, standstill
from pairmill.ops.admin.connection import admin, admin_dsn, home
from pairmill.ops.admin.logins import local_worker
from pairmill.ops.admin.status import gather
from pairmill.ops.cli import run
from pairmill.ops.demo import model as demo_model
from pairmill.ops.demo import page_processes
from pairmill.ops.demo.publish import publish
from pairmill.ops.errors import UserError
from pairmill.ops.output import plain_console
from pairmill.ops.queries import rows
from pairmill.ops.release import recipe, release
from pairmill.ops.release.manifest import Manifest
from pairmill.workers.safe_text import say

OUT = Path("out/demo")
STOP_SECONDS = 20.0
console = plain_console()


class Until(StrEnum):
    """The last step of the demo."""

    DOWNLOAD = "download"
    RELEASE = "release"


@contextmanager
def _process(*command: str, env: dict[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child process, ended by its pid when the block ends."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command], env=os.environ | env, text=True, **options
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _serve(stack: ExitStack, serve: str | None, wat: Path | None) -> dict[str, str]:
    """Start the web server; returns the environment that sends the downloader there.

    wat: where the WAT file of the demo's site goes; it is written while the server draws the site.
    """
    if serve is None:
        what: list[str] = []
    else:
        what = ["--folder" if Path(serve).is_dir() else "--warc", serve]
    child = stack.enter_context(
        _process("pairmill.ops.demo.serve", *what, env={}, stdout=subprocess.PIPE)
    )
    if wat:
        _write_demo_wat(wat)
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    if not address:
        raise UserError(f"the web server did not start: {serve or 'the demo site'}")
    console.print(f"a web server on {address} plays the web")
    return {
        "PAIRMILL_CONNECT_TO": address.removeprefix("http://"),
        "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8",
    }


def _run_workers(
    connection: psycopg.Connection, kinds: Iterable[str], model: list[str], web: dict[str, str]
) -> None:
    """One process a kind, each with its own login, until nothing is left to do."""
    with ExitStack() as stack:
        children = {}
        for kind in kinds:
            options = model if kind == "score" else []
            env = web | {"PAIRMILL_WORKER_DSN": local_worker(connection, kind)}
            env |= {"DATABASE_URL": ""}  # a worker needs no admin's rights
            command = ("pairmill.ops.cli", "work", kind, "--drain", *options)
            children[kind] = stack.enter_context(_process(*command, env=env))
        while children:  # whichever ends first: the others would wait for one that failed
            time.sleep(0.2)
            for kind in [kind for kind, child in children.items() if child.poll() is not None]:
                code = children.pop(kind).returncode
                if code:
                    raise UserError(f"the {kind} worker ended with exit code {code}")


def _funnel(
    state: dict[str, Any], connection: psycopg.Connection, model: str, kept: dict[str, int] | None
) -> Table:
    """Pairs and downloads by language; with a release, also what was scored and kept."""
    columns = {
        "pairs": state["pairs"],
        "downloaded": _by_language(
            rows(connection, "select * from report.pair_count where outcome = 'success'")
        ),
    }
    if kept is not None:
        query = "select * from report.score_count where outcome = 'scored' and model = %s"
        columns |= {"scored": _by_language(rows(connection, query, model)), "kept": kept}
    table = Table("language", box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right")
    for language, _ in sorted(state["pairs"].items(), key=lambda item: -item[1]):
        table.add_row(language, *(str(n.get(language, 0)) for n in columns.values()))
    table.add_row("all", *(str(sum(n.values())) for n in columns.values()), style="bold")
    return table


def _by_language(found: list[dict[str, Any]]) -> dict[str, int]:
    return {row["language"]: row["pairs"] for row in found}


def demo(
    wat: str | None = typer.Option(
        None, "--wat", help="Another WAT file than the demo site's: a path or URL."
    ),
    serve: str | None = typer.Option(
        None,
        "--serve",
        help="Images come from this WARC or folder, served on loopback, not from the web.",
    ),
    model: str | None = typer.Option(
        None, "--model", help="An open_clip model; by default the project's own small one."
    ),
    pretrained: str = typer.Option(
        "", "--pretrained", help="Its weights: open_clip's tag or a checkpoint's path."
    ),
    until: Until = typer.Option(
        Until.RELEASE, "--until", help="The last step; up to `download` no torch is needed."
    ),
    serve_pages: bool = typer.Option(
        False, "--serve-pages", help="Serve the pages at the end, until Ctrl-C."
    ),
    first_port: int = typer.Option(
        page_processes.FIRST_PORT, "--first-port", help="Of the pages: four in a row."
    ),
) -> None:
    """From a WAT file to a Parquet release, with the real workers."""
    with admin_dsn(make=True) as dsn, ExitStack() as stack:
        os.environ["DATABASE_URL"] = dsn
        console.rule("database")
        migrate.upgrade(dsn)
        connection = stack.enter_context(admin())
        migrate.secure(connection)
        console.print(
            f"{connection.info.host}:{connection.info.port}, schema at {migrations.revisions()[-1]}"
        )

        options = ["--model", model or str(demo_model.PATH)]
        if model:
            options += ["--pretrained", pretrained]
        name = model or "pairmill-demo"
        if until is Until.RELEASE:
            console.rule("model")
            _cli("model", "add", *options, "--name", name)

        console.rule("WAT file")
        own = None if wat else home() / "demo.wat.gz"
        web = _serve(stack, serve if wat else None, own) if own or serve else {}
        _cli("wat", "add", wat or str(own))

        console.rule("workers")
        kinds = ("steward", "extract", "download", "score")
        _run_workers(connection, kinds if until is Until.RELEASE else kinds[:-1], options, web)

        manifest, newest = None, OUT
        if until is Until.RELEASE:
            console.rule("release")
            overrides: dict[str, Any] = {"model": name, "pretrained": pretrained}
            if model:  # the recipe's threshold is of our own model's scale; this is LAION-400M's
                overrides["min_similarity"] = 0.3
            chosen = recipe.load("demo", overrides)
            shutil.rmtree(OUT, ignore_errors=True)
            manifest = release.build(connection, chosen, OUT)
            twins = manifest.excluded.get("duplicate", 0)
            console.print(f"{manifest.kept} pairs are kept, {twins} left out as duplicates of them")
            newest = publish(OUT, _cli, console.rule)
        _report(connection, name, manifest)
        if manifest and serve_pages:
            page_processes.serve(newest, options, _cli, _process, console.rule, first_port)
        elif manifest:
            console.print("its pages, until Ctrl-C: `make demo SERVE_PAGES=1`")


def _cli(*command: str) -> None:
    if subprocess.run([sys.executable, "-m", "pairmill.ops.cli", *command], check=False).returncode:
        raise UserError(f"pairmill {' '.join(command)} failed")


def _write_demo_wat(path: Path) -> None:
    from pairmill.ops.demo.site import build
    from pairmill.ops.demo.wat import write_wat

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        write_wat(build(drawn=False).pages, out)


def _report(connection: psycopg.Connection, model: str, manifest: Manifest | None) -> None:
    """manifest: of the release; None before there is one."""
    state = gather(connection)
    console.rule("funnel")
    dropped = ", ".join(f"{name} {count}" for name, count in state["dropped"].items())
    console.print(f"{state['links']} links = {sum(state['dropped'].values())} dropped ({dropped})")
    console.print(f"  + {state['duplicates']} duplicates + {sum(state['pairs'].values())} pairs")
    fetched = ", ".join(f"{name} {count}" for name, count in state["fetched"].items())
    console.print(f"fetched: {fetched}\n")
    for line in standstill.stopped(state["discarded"]):
        say(line)
    kept = manifest.kept_by_language if manifest else None
    console.print(_funnel(state, connection, model, kept))
    if manifest:
        console.print(
            f"\nrelease: {OUT}/part-00000.parquet, {manifest.kept} rows;"
            f" see `pairmill release show {OUT}`"
        )
    else:
        console.print(
            "\nnot scored: `make demo` installs torch, scores these pairs and releases them"
        )


if __name__ == "__main__":
    run(lambda: typer.run(demo))

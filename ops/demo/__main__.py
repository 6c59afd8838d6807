"""The demo: the real workers, as processes of their own, from a WAT file to a release.

Without options it serves a small web site of its own on loopback and makes a WAT file of it,
so it needs no network. It uses the ordinary database (DATABASE_URL, or the embedded one of
PAIRMILL_HOME): `pairmill status` shows it afterwards, and a second run adds nothing.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from pairmill.ops.admin import migrate
from pairmill.ops.admin.connection import admin, admin_dsn, home, rows
from pairmill.ops.admin.logins import local_worker
from pairmill.ops.admin.status import gather
from pairmill.ops.cli import run
from pairmill.ops.demo import model as demo_model
from pairmill.ops.errors import UserError
from pairmill.ops.release import recipe, release
from pairmill.ops.release.manifest import Manifest

OUT = Path("out/demo")
STOP_SECONDS = 20.0
console = Console(highlight=False)


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


def _serve(stack: ExitStack, serve: str | None) -> dict[str, str]:
    """Start the web server; returns the environment that sends the downloader there."""
    if serve is None:
        what: list[str] = []
    else:
        what = ["--folder" if Path(serve).is_dir() else "--warc", serve]
    child = stack.enter_context(
        _process("pairmill.ops.demo.serve", *what, env={}, stdout=subprocess.PIPE)
    )
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    if not address:
        raise UserError(f"the web server did not start: {serve or 'the demo site'}")
    console.print(f"a web server on {address} plays the web")
    return {
        "PAIRMILL_CONNECT_TO": address.removeprefix("http://"),
        "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8",
    }


def _run_workers(connection: psycopg.Connection, model: list[str], web: dict[str, str]) -> None:
    """One process a kind, each with its own login, until nothing is left to do."""
    with ExitStack() as stack:
        children = {}
        for kind in ("steward", "extract", "download", "score"):
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
    state: dict[str, Any], connection: psycopg.Connection, model: str, kept: dict[str, int]
) -> Table:
    """links -> pairs -> downloaded -> scored -> kept, by language."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("language", "pairs", "downloaded", "scored", "kept"):
        table.add_column(name, justify="left" if name == "language" else "right")
    downloaded = _by_language(
        rows(connection, "select * from report.pair_count where outcome = 'success'")
    )
    scored = _by_language(
        rows(
            connection,
            "select * from report.score_count where outcome = 'scored' and model = %s",
            model,
        )
    )
    for language, pairs in sorted(state["pairs"].items(), key=lambda item: -item[1]):
        table.add_row(
            language,
            *(str(n.get(language, 0)) for n in ({language: pairs}, downloaded, scored, kept)),
        )
    table.add_row(
        "all",
        *(str(sum(n.values())) for n in (state["pairs"], downloaded, scored, kept)),
        style="bold",
    )
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
) -> None:
    """From a WAT file to a Parquet release, with the real workers."""
    with admin_dsn() as dsn, ExitStack() as stack:
        os.environ["DATABASE_URL"] = dsn
        console.rule("database")
        migrate.upgrade(dsn)
        connection = stack.enter_context(admin())
        migrate.secure(connection)
        console.print(
            f"{connection.info.host}:{connection.info.port}, schema at {migrate.revisions()[-1]}"
        )

        console.rule("model")
        options = (
            ["--model", model, "--pretrained", pretrained]
            if model
            else ["--model", str(demo_model.PATH)]
        )
        name = model or "pairmill-demo"
        _cli("model", "add", *options, "--name", name)

        console.rule("WAT file")
        web = {} if wat and not serve else _serve(stack, serve if wat else None)
        if wat is None:
            wat = str(home() / "demo.wat.gz")
            _write_demo_wat(Path(wat))
        _cli("wat", "add", wat)

        console.rule("workers")
        _run_workers(connection, options, web)

        console.rule("release")
        overrides: dict[str, Any] = {"model": name, "pretrained": pretrained}
        if model:  # the recipe's threshold is of our own model's scale; this is LAION-400M's
            overrides["min_similarity"] = 0.3
        chosen = recipe.load("demo", overrides)
        shutil.rmtree(OUT, ignore_errors=True)
        manifest = release.build(connection, chosen, OUT)
        _report(connection, name, manifest)


def _cli(*command: str) -> None:
    if subprocess.run([sys.executable, "-m", "pairmill.ops.cli", *command], check=False).returncode:
        raise UserError(f"pairmill {' '.join(command)} failed")


def _write_demo_wat(path: Path) -> None:
    from pairmill.ops.demo.site import build
    from pairmill.ops.demo.wat import write_wat

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        write_wat(build().pages, out)


def _report(connection: psycopg.Connection, model: str, manifest: Manifest) -> None:
    state = gather(connection)
    console.rule("funnel")
    dropped = ", ".join(f"{name} {count}" for name, count in state["dropped"].items())
    console.print(f"{state['links']} links = {sum(state['dropped'].values())} dropped ({dropped})")
    console.print(f"  + {state['duplicates']} duplicates + {sum(state['pairs'].values())} pairs")
    fetched = ", ".join(f"{name} {count}" for name, count in state["fetched"].items())
    console.print(f"fetched: {fetched}\n")
    for task in state["parked"]:
        console.print(f"parked: task {task['task_id']} ({task['kind']}): {task['reason']}\n")
    console.print(_funnel(state, connection, model, manifest.kept_by_language))
    console.print(f"\nrelease: {OUT}/part-00000.parquet, {manifest.kept} rows; see {OUT}/README.md")


if __name__ == "__main__":
    run(lambda: typer.run(demo))

"""pairmill work: run a worker."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pairmill.ops.admin.connection import admin, has_database
from pairmill.ops.admin.logins import local_worker
from pairmill.ops.commands.model import MODEL, PRETRAINED, SHA256, load
from pairmill.ops.errors import UserError, extra
from pairmill.schema.kinds import KINDS, login_of
from pairmill.workers.dsn import MISSING, WORKER_DSN, checked, unverified
from pairmill.workers.errors import Refused, of_another_kind
from pairmill.workers.queue import Queue
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.workers.daemon import WorkerKind

app = typer.Typer(no_args_is_help=True, help="Run a worker until it is stopped (Ctrl-C, SIGTERM).")


def _named(context: typer.Context, dsn: str | None) -> str | None:
    """The DSN, whole; None beside a database, where the local worker's is taken. Asked before all
    else: nothing is loaded, agreed to or made on disk for a worker that cannot log in."""
    if context.resilient_parsing:
        return None
    if dsn and dsn.strip():
        found = checked(dsn)
        if problem := unverified(found):
            say(f"pairmill: warning: {problem}", err=True)
        return found
    if has_database():
        return None
    raise UserError(
        f"{MISSING}; on the database's own machine, set DATABASE_URL, or make a database in this"
        " folder with `pairmill migrate`"
    )


DSN = typer.Option(
    None, "--dsn", envvar=WORKER_DSN, show_envvar=True, callback=_named,
    help="The worker's DSN, from `pairmill worker add`; not needed beside the database.",
)  # fmt: skip
DRAIN = typer.Option(
    False, "--drain", help="Stop when nothing is left to claim, here and upstream."
)
METRICS = typer.Option(
    "", "--metrics", envvar="PAIRMILL_METRICS",
    help="HOST:PORT: serve /metrics (Prometheus) and /healthz there.",
)  # fmt: skip


@contextmanager
def _login(dsn: str | None, kind: str) -> Iterator[str]:
    """The worker's own DSN; without one, that of the local worker, made with the admin's rights."""
    if dsn:
        yield dsn
        return
    with admin() as connection:  # held open: it keeps an embedded server running
        yield local_worker(connection, kind)


def _greet(dsn: str, kind: str) -> None:
    """Raise Refused where the database does not take this login for a kind; for a worker whose
    weights take gigabytes and minutes to load."""
    queue = Queue(dsn)
    try:
        me = queue.me()
    finally:
        queue.close()
    if me["why"]:
        raise Refused(me["why"])
    if me["kind"] != kind:
        raise of_another_kind(me["kind"], kind)


def _run(kind: str, serve: Callable[..., Awaitable[None]], dsn: str | None, metrics: str) -> None:
    """Run ``serve(login, metrics=…)``; its metrics are served at an address that is not empty."""
    from pairmill.workers import daemon
    from pairmill.workers.metrics import Metrics, listen

    with _login(dsn, login_of(kind)) as login:
        measured = Metrics(kind)
        end = listen(measured, metrics) if metrics else None
        try:
            daemon.run(partial(serve, login, metrics=measured))
        finally:
            if end:
                end()


def _work(worker: "WorkerKind[Any]", dsn: str | None, drain: bool, metrics: str) -> None:
    """Claim tasks of a worker's kind and do them."""
    from pairmill.workers.daemon import serve

    _run(worker.name, partial(serve, worker, drain=drain), dsn, metrics)


@app.command()
def extract(dsn: str = DSN, drain: bool = DRAIN, metrics: str = METRICS) -> None:
    """Extract pairs of a URL and a text from WAT files."""
    with extra("extract"):
        from pairmill.workers.extract.worker import Extract
    _work(Extract(), dsn, drain, metrics)


@app.command()
def download(
    dsn: str = DSN,
    drain: bool = DRAIN,
    concurrency: int = typer.Option(64, "--concurrency", min=1, help="Fetches at once."),
    decoders: int = typer.Option(1, "--decoders", min=1, help="Processes that decode images."),
    memory: int = typer.Option(
        256, "--memory", min=64, help="MB, for the fetches and one decoder."
    ),
    verify_tls: bool = typer.Option(
        True,
        "--verify-tls/--no-verify-tls",
        help="Whether an image is refused whose certificate is expired, self-signed or another"
        " host's.",
    ),
    agree: bool = typer.Option(
        False, "--agree", envvar="PAIRMILL_AGREE", help="Agree to what it does; shown once."
    ),
    metrics: str = METRICS,
) -> None:
    """Download the images of batches, and make thumbnails of them."""
    with extra("download"):
        from pairmill.workers.download import consent
        from pairmill.workers.download.environment import backend
        from pairmill.workers.download.worker import Download, Options
    fetching = backend(verify_tls=verify_tls)
    if dsn and not fetching.network.connect_to:  # a volunteer's, on the public web
        consent.ask(agree=agree)
    _work(Download(fetching, Options(concurrency, decoders, memory)), dsn, drain, metrics)


@app.command()
def score(
    name: str = MODEL,
    pretrained: str = PRETRAINED,
    sha256: str = SHA256,
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, or auto."),
    precision: str = typer.Option(
        "auto", "--precision", help="fp32, bf16, fp16, or auto: bf16 where a GPU has it, else fp32."
    ),
    compiled: bool = typer.Option(
        False, "--compile", help="torch.compile the model: a minute or more at the start."
    ),
    threads: int = typer.Option(
        None, "--threads", min=1, help="CPU cores to use; all that it may, by default."
    ),
    watermark: Path = typer.Option(
        None, "--watermark", help="Weights of LAION's watermark detector, to tag with it too."
    ),
    dsn: str = DSN,
    drain: bool = DRAIN,
    metrics: str = METRICS,
) -> None:
    """Score thumbnails against their texts: similarities, embeddings and tags."""
    with extra("score"):
        import safetensors  # noqa: F401 - of the extra the one whose import takes no seconds
    if dsn:
        _greet(dsn, login_of("score"))
    options = {"precision": precision, "compiled": compiled, "threads": threads}
    loaded = load(name, pretrained, device, sha256=sha256, **options)
    from pairmill.workers.score import watermark as detector
    from pairmill.workers.score.worker import Score

    pixels = [detector.load(watermark, device=loaded.device)] if watermark else []
    _work(Score(loaded, pixels, threads=threads), dsn, drain, metrics)


@app.command()
def steward(
    dsn: str = DSN,
    drain: bool = DRAIN,
    metrics: str = METRICS,
    url_filter: Path = typer.Option(
        None,
        "--url-filter",
        help="Keep a Bloom filter of the known URLs in this file: for when their index has"
        " outgrown memory. It takes about 2.4 bytes of memory a URL.",
    ),
    trust_filter: bool = typer.Option(
        False,
        "--trust-filter",
        help="Look nothing up: a URL that the filter may have seen is a duplicate. One new URL"
        " in a hundred is lost.",
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="A line for each submission, not only one a minute."
    ),
) -> None:
    """Accept submissions, return late leases, close batches, empty the thumbnail ring."""
    from pairmill.workers.steward.worker import serve

    if trust_filter and not url_filter:
        raise UserError("--trust-filter goes with --url-filter FILE")
    keys = None
    if url_filter:
        if not url_filter.absolute().parent.is_dir():
            raise UserError(f"there is no folder {url_filter.absolute().parent}")
        try:
            from pairmill.workers.steward.url_filter import UrlFilter
        except ModuleNotFoundError:
            raise UserError("--url-filter needs rbloom: pip install 'pairmill[ops]'") from None
        keys = UrlFilter(url_filter, trusted=trust_filter)
    _run("steward", partial(serve, drain=drain, url_filter=keys, verbose=verbose), dsn, metrics)


def _add_command(kind: str) -> None:
    """A command of a kind that has no options of its own: ``Worker`` of its worker.py is run."""

    def command(dsn: str = DSN, drain: bool = DRAIN, metrics: str = METRICS) -> None:
        _work(import_module(f"pairmill.workers.{kind}.worker").Worker(), dsn, drain, metrics)

    app.command(kind.replace("_", "-"), help=f"Do tasks of kind {kind}.")(command)


for each in KINDS:
    if each.name not in globals():
        _add_command(each.name)

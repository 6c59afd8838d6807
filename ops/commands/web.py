"""pairmill web: the pages, each a process of its own."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Pages: what is going on, what is in it, nearest neighbours, and the queue.",
)
METRICS = typer.Option(
    None, "--metrics", envvar="PAIRMILL_METRICS", show_envvar=True, metavar="HOST:PORT",
    help="Serve Prometheus metrics there, to nobody else.",
)  # fmt: skip
HOSTS = typer.Option(
    [], "--host", metavar="NAME", help="A name that it is served under, beside its addresses."
)
LOG = typer.Option(False, "--log", help="A line for each request, without its query.")
PROXY = typer.Option(
    False, "--proxy", help="Believe X-Forwarded-For and -Proto: a proxy of yours sets them."
)


def bind_option(address: str) -> str:
    """The option --bind of a page, with its default."""
    default: str = typer.Option(
        address, "--bind", metavar="HOST:PORT|unix:PATH", help="Where it listens."
    )
    return default

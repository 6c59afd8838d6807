"""pairmill web explore."""

from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import UserError, extra


@app.command("explore")
def explore(
    bind: str = bind_option("127.0.0.1:8802"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    hosts: list[str] = HOSTS,
    log: bool = LOG,
) -> None:
    """Serve the page `explore`."""
    with extra("web"):
        from pairmill.ops.web import serve  # noqa: F401
    raise UserError("this page is not there yet")

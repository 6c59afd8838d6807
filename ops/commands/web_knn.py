"""pairmill web knn."""

from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import UserError, extra


@app.command("knn")
def knn(
    bind: str = bind_option("127.0.0.1:8803"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    hosts: list[str] = HOSTS,
    log: bool = LOG,
) -> None:
    """Serve the page `knn`."""
    with extra("web"):
        from pairmill.ops.web import serve  # noqa: F401
    raise UserError("this page is not there yet")

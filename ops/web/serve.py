"""The server of a page's process: uvicorn, with bounds on what a slow or a rude client holds."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from pairmill.ops.errors import UserError
from pairmill.workers.safe_text import say

LOOPBACK = ("127.", "::1", "localhost")


def _config(app: Starlette, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        **more,
    )


def listening(bind: str) -> socket.socket:
    """A socket on HOST:PORT or unix:PATH. Raises UserError."""
    try:
        if bind.startswith("unix:"):
            return _unix(Path(bind.removeprefix("unix:")))
        host, colon, port = bind.rpartition(":")
        if not colon or not port.isdecimal():
            raise UserError(f"--bind is HOST:PORT or unix:PATH, not {bind!r}")
        host = host.strip("[]") or "127.0.0.1"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {bind}: {error}; another address is --bind HOST:PORT"
        ) from None
    return listener


def _unix(path: Path) -> socket.socket:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.is_socket():
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()  # of a process that is gone
        else:
            raise UserError(f"cannot listen on unix:{path}: another process listens there")
        finally:
            probe.close()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


def _url(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(
    app: Starlette,
    bind: str,
    *,
    metrics: str | None = None,
    proxy: bool = False,
    hosts: Sequence[str] = (),
    log: bool = False,
) -> None:
    """Serve an application on HOST:PORT or unix:PATH until SIGTERM or Ctrl-C.

    metrics: HOST:PORT of its Prometheus metrics. proxy: the X-Forwarded-… headers are those of a
    proxy of the admin's. hosts: names that it is served under, beside localhost and addresses. log:
    a line for each request. Raises UserError where the address is not to be had, or is not one that
    the site may have.
    """
    site = app.state.site
    if site.loopback_only and not bind.startswith(("unix:", *LOOPBACK, "[::1]")):
        raise UserError(
            f"{site.name} is for this machine alone: bind it to 127.0.0.1, or to unix:PATH behind a"
            " proxy that asks who comes"
        )
    listener = listening(bind)
    app.state.proxy = proxy
    app.state.hosts = frozenset(name.lower() for name in hosts)
    say(f"{site.name}: {_url(listener)}")
    uvicorn.Server(_config(app)).run(sockets=[listener])


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The base URL of an application that a thread serves on a free port of loopback."""
    listener = listening("127.0.0.1:0")
    server = uvicorn.Server(_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        if not server.started:
            raise RuntimeError("the server did not start")
        yield _url(listener).rstrip("/")
    finally:
        server.should_exit = True
        thread.join()

"""The server of a page's process: uvicorn over ``wire``, until SIGTERM or Ctrl-C."""

import contextlib
import ipaddress
import logging
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from pairmill.ops.errors import UserError
from pairmill.ops.web.wire import BOUNDS, Bounds, wire
from pairmill.workers.metrics import listen
from pairmill.workers.safe_text import say

GRACE_SECONDS = 5  # for the requests at work, at the end
BACKLOG = 1_024


class _Server(uvicorn.Server):
    """A server that hears the two signals and then returns: uvicorn raises them again, and SIGTERM
    would end the process before what was opened for it is closed."""

    heard: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.heard = self.heard or sig
        super().handle_exit(sig, frame)


def _server(app: Starlette, bounds: Bounds) -> _Server:
    config = uvicorn.Config(
        app,
        http=wire(bounds, app.state.metrics.refused),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL + 1,  # what it would say is not made safe; Defences say it
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=bounds.keep_alive_seconds,  # type: ignore[arg-type] # seconds of any sort
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _Server(config)


def _run(server: _Server, listener: socket.socket, app: Starlette) -> None:
    """Run a server to its end. Raises what the application raised at its start."""
    try:
        server.run(sockets=[listener])
    except SystemExit:  # uvicorn's, of a start that failed
        if app.state.start_error is None:
            raise
    finally:
        listener.close()
    if app.state.start_error is not None:
        raise app.state.start_error


def listening(bind: str) -> socket.socket:
    """A socket that is bound to HOST:PORT or unix:PATH. Raises UserError."""
    try:
        if bind.startswith("unix:"):
            return _unix(Path(bind.removeprefix("unix:")))
        host, port = host_and_port(bind)
        listener = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM
        )
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except (OSError, OverflowError):
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {bind}: {error}; --bind names another address") from None
    return listener


def host_and_port(bind: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT or [ADDRESS]:PORT. Raises UserError."""
    host, colon, port = bind.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not (port.isascii() and port.isdecimal()):
        raise UserError(f"--bind is HOST:PORT or unix:PATH, not {bind!r}")
    return bare, int(port)


def _unix(path: Path) -> socket.socket:
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise UserError(f"cannot listen on unix:{path}: it is a file, and no socket")
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # of a process that is gone
            else:
                raise UserError(f"cannot listen on unix:{path}: another process listens there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)  # its group's, where the proxy is
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def is_local(bind: str) -> bool:
    """Whether an address of --bind is a Unix socket, or one that only this machine reaches."""
    if bind.startswith("unix:"):
        return True
    host, _ = host_and_port(bind)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    bounds: Bounds = BOUNDS,
) -> None:
    """Serve an application on HOST:PORT or unix:PATH until SIGTERM or Ctrl-C.

    metrics: HOST:PORT of its Prometheus metrics. proxy: the X-Forwarded-… headers are those of a
    proxy of the admin's, as they are over a Unix socket in any case. hosts: names that it is served
    under, beside localhost and addresses. log: a line for each request, on standard error. Raises
    UserError where the address is not to be had, or is not one that the site may have;
    KeyboardInterrupt after Ctrl-C.
    """
    site, unix = app.state.site, bind.startswith("unix:")
    if site.loopback_only and not is_local(bind):
        raise UserError(
            f"{site.name} on {bind} would be for all who reach it, and is for this machine alone:"
            " bind it to 127.0.0.1, or to unix:PATH behind a proxy with TLS"
        )
    if proxy and not is_local(bind):
        raise UserError(
            f"--proxy with {bind}: whoever reaches that address could name any client; bind it to"
            " unix:PATH or 127.0.0.1, where only the proxy comes"
        )
    listener = listening(bind)
    app.state.proxy, app.state.unix, app.state.log = proxy or unix, unix, log
    app.state.hosts = frozenset(name.lower().rstrip(".") for name in hosts)
    end: Callable[[], None] = listen(app.state.metrics, metrics) if metrics else lambda: None
    server = _server(app, bounds)
    app.state.started = lambda: say(f"{site.name}: {_url(listener)}")
    try:
        _run(server, listener, app)
    finally:
        end()
        if unix:
            Path(bind.removeprefix("unix:")).unlink(missing_ok=True)
    if server.heard == signal.SIGINT:
        raise KeyboardInterrupt


@contextmanager
def serving(app: Starlette, bounds: Bounds = BOUNDS, bind: str = "127.0.0.1:0") -> Iterator[str]:
    """The base URL of an application that a thread serves, on a free port of loopback."""
    listener = listening(bind)
    app.state.unix = app.state.proxy = bind.startswith("unix:")
    url = _url(listener).rstrip("/")
    ready = threading.Event()
    app.state.started = ready.set
    server = _server(app, bounds)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _run(server, listener, app)
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise failed[0]
        yield url
    finally:
        server.should_exit = True
        thread.join()

"""Metrics of a worker, for Prometheus: /metrics and /healthz on a port of its own."""

import threading
import time
from collections.abc import Callable, Iterable
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, MetricsHandler

from pairmill.workers.errors import Refused

STALL_SECONDS = 300.0  # no sign of life for this long: not healthy


class Metrics:
    """Counters of one worker process. ``listening`` serves them; without it they only count."""

    def __init__(self, kind: str) -> None:
        self.registry = CollectorRegistry()
        self._tasks = Counter(
            "pairmill_worker_tasks", "Tasks by how they ended here.", ("kind", "ended"),
            registry=self.registry,
        )  # fmt: skip
        self._rows = Counter(
            "pairmill_worker_rows", "Rows worked on, by outcome.", ("kind", "outcome"),
            registry=self.registry,
        )  # fmt: skip
        self._queue = Gauge(
            "pairmill_queue", "The queue, as report.queue has it.", ("kind", "what"),
            registry=self.registry,
        )  # fmt: skip
        self._kind = kind
        self._alive = time.monotonic()

    def task(self, ended: str) -> None:
        """A task ended here: done, failed, lost or handed back."""
        self._tasks.labels(self._kind, ended).inc()
        self.alive()

    def rows(self, outcome: str, count: int = 1) -> None:
        self._rows.labels(self._kind, outcome).inc(count)

    def queue(self, found: Iterable[tuple[str, str, float]]) -> None:
        """found: (kind, name, value), as StewardQueue.counts gives them."""
        for kind, name, value in found:
            self._queue.labels(kind, name).set(value)

    def alive(self) -> None:
        """The worker has just done something, if only asked for work."""
        self._alive = time.monotonic()

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self._alive < STALL_SECONDS


def listen(metrics: Metrics, address: str) -> Callable[[], None]:
    """Serve metrics on HOST:PORT, from a thread; returns the call that ends it. Raises Refused."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        server = ThreadingHTTPServer((host, int(port)), _handler(metrics))
    except (OSError, ValueError, OverflowError) as error:
        raise Refused(f"--metrics is HOST:PORT, and {address!r} cannot be had: {error}") from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()

    def end() -> None:
        server.shutdown()
        server.server_close()

    return end


def _handler(metrics: Metrics) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        registry = metrics.registry

        def do_GET(self) -> None:
            if self.path == "/metrics":
                super().do_GET()
                return
            status, said = 404, b"/metrics or /healthz\n"
            if self.path == "/healthz":
                status, said = (200, b"ok\n") if metrics.healthy else (503, b"no sign of life\n")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    return Handler

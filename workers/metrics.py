"""Metrics of a worker, for Prometheus: /metrics and /healthz on a port of its own."""

import threading
import time
from collections.abc import Callable, Iterable
from http.server import ThreadingHTTPServer
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, MetricsHandler

from pairmill.workers.errors import Refused
from pairmill.workers.reach import Reach, Watched

STALL_SECONDS = 300.0  # no sign of life for this long: not healthy


class Metrics:
    """Counters of one worker process, and what it needs that may be away: its database, and with
    ``watch`` more. ``listen`` serves them; without it they only count."""

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
        self.database = Reach()
        self.watched: list[Watched] = []
        self.watch(self.database)

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

    def watch(self, watched: Watched) -> None:
        """Serve whether it is there, as ``pairmill_NAME_up`` and ``pairmill_NAME_down_seconds``."""

        def down_seconds() -> float:
            outage = watched.outage()
            return outage.seconds if outage else 0.0

        for name, said, value in (
            ("up", "1, or 0 in an outage.", lambda: float(watched.outage() is None)),
            ("down_seconds", "Seconds that an outage lasts; 0 where there is none.", down_seconds),
        ):
            text = f"The {watched.name}, as this worker sees it: {said}"
            gauge = Gauge(
                f"pairmill_{watched.name}_{name}", text, ("kind",), registry=self.registry
            )
            gauge.labels(self._kind).set_function(value)
        self.watched.append(watched)

    def alive(self) -> None:
        """The worker has just done something, if only asked for work."""
        self._alive = time.monotonic()

    @property
    def trouble(self) -> str | None:
        """Why the worker is not healthy, in a sentence; None where it is."""
        outages = [outage for each in self.watched if (outage := each.outage())]
        if outages:
            return "; ".join(outage.sentence for outage in outages)
        return None if time.monotonic() - self._alive < STALL_SECONDS else "no sign of life"


class Served(Protocol):
    """What ``listen`` serves: a worker's Metrics, or a page's."""

    registry: CollectorRegistry

    @property
    def trouble(self) -> str | None: ...


def listen(metrics: Served, address: str) -> Callable[[], None]:
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


def _handler(metrics: Served) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        registry = metrics.registry

        def do_GET(self) -> None:
            if self.path == "/metrics":
                super().do_GET()
                return
            status, said = 404, b"/metrics or /healthz\n"
            if self.path == "/healthz":
                trouble = metrics.trouble
                status, said = (503 if trouble else 200), f"{trouble or 'ok'}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    return Handler

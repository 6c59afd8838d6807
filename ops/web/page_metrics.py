"""Metrics of a page's process, for Prometheus: on a port of its own, never the public one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0)


class PageMetrics:
    """Requests of a site by route and status, their seconds, those in flight, and what was refused
    by reason. More may be registered in ``registry``. trouble: a sentence while the process cannot
    do its work; /healthz of the metrics' port has it."""

    def __init__(self, site: str) -> None:
        self.registry = CollectorRegistry()
        self.trouble: str | None = None
        self._site = site
        self._requests = Counter(
            "pairmill_web_requests", "Requests by site, route and status.",
            ("site", "route", "status"), registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "pairmill_web_seconds", "Seconds from a request to the end of its response.",
            ("site", "route"), registry=self.registry, buckets=BUCKETS,
        )  # fmt: skip
        self._refused = Counter(
            "pairmill_web_refused", "Requests and connections that no page saw, by reason.",
            ("site", "reason"), registry=self.registry,
        )  # fmt: skip
        in_flight = Gauge(
            "pairmill_web_in_flight", "Requests at work.", ("site",), registry=self.registry
        )
        self.in_flight = in_flight.labels(site)
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request is done. route: its template, of which a site has few."""
        found = self._of_route.get((route, status))
        if found is None:
            found = self._of_route[route, status] = (
                self._requests.labels(self._site, route, str(status)),
                self._seconds.labels(self._site, route),
            )
        found[0].inc()
        found[1].observe(seconds)

    def refused(self, reason: str) -> None:
        """reason: host, csrf, rate, share, busy, body, or one of ``wire``'s."""
        self._refused.labels(self._site, reason).inc()

"""A worker's metrics, as Prometheus reads them."""

import socket
import urllib.error
import urllib.request

import pytest

from pairmill.workers import metrics as module
from pairmill.workers.errors import Refused
from pairmill.workers.metrics import Metrics, listen
from pairmill.workers.reach import Outage


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_what_is_counted_is_served(free_port: int) -> None:
    metrics = Metrics("download")
    end = listen(metrics, f"127.0.0.1:{free_port}")
    try:
        metrics.rows("success", 3)
        metrics.rows("timeout")
        metrics.task("done")
        metrics.queue([("download", "ready", 7.0)])
        status, text = get(free_port, "/metrics")
        assert status == 200
        for line in (
            'pairmill_worker_rows_total{kind="download",outcome="success"} 3.0',
            'pairmill_worker_rows_total{kind="download",outcome="timeout"} 1.0',
            'pairmill_worker_tasks_total{ended="done",kind="download"} 1.0',
            'pairmill_queue{kind="download",what="ready"} 7.0',
        ):
            assert line in text.splitlines()
        assert get(free_port, "/other")[0] == 404
    finally:
        end()


def test_worker_without_a_sign_of_life_is_not_healthy(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics("download")
    end = listen(metrics, f":{free_port}")
    try:
        assert get(free_port, "/healthz") == (200, "ok\n")
        monkeypatch.setattr(module, "STALL_SECONDS", 0.0)
        assert get(free_port, "/healthz") == (503, "no sign of life\n")
        monkeypatch.setattr(module, "STALL_SECONDS", 60.0)
        metrics.alive()
        assert get(free_port, "/healthz")[0] == 200
    finally:
        end()


def test_worker_whose_database_or_network_is_away_is_not_healthy(free_port: int) -> None:
    """While every counter stands still and nothing else says why."""

    class Network:
        name, back, advice = "network", "", ""
        found: Outage | None = None

        def outage(self) -> Outage | None:
            return self.found

    metrics, network = Metrics("download"), Network()
    metrics.watch(network)
    end = listen(metrics, f":{free_port}")
    try:
        for name in ("database", "network"):
            assert f'pairmill_{name}_up{{kind="download"}} 1.0' in get(free_port, "/metrics")[1]
        network.found = Outage(0.0, 7.0, "no host answers since 12:00:00")
        assert get(free_port, "/healthz") == (503, "no host answers since 12:00:00\n")
        served = get(free_port, "/metrics")[1].splitlines()
        assert 'pairmill_network_up{kind="download"} 0.0' in served
        assert 'pairmill_network_down_seconds{kind="download"} 7.0' in served
        assert 'pairmill_database_up{kind="download"} 1.0' in served
        network.found = None
        assert get(free_port, "/healthz") == (200, "ok\n")
    finally:
        end()


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:x", "127.0.0.1:99999", "192.0.2.1:9100"]
)
def test_address_that_cannot_be_had_is_a_sentence(address: str) -> None:
    with pytest.raises(Refused, match="--metrics is HOST:PORT"):
        listen(Metrics("download"), address)

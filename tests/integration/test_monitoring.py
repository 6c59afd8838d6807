"""Prometheus's and Grafana's files: what they ask for exists, and promtool takes them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pairmill.ops.web.app import Site
from pairmill.ops.web.live.board import Board
from pairmill.ops.web.live.refresh import Refresher
from pairmill.ops.web.page_metrics import PageMetrics
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.web_reach import WebReach
from pairmill.workers.metrics import Metrics
from support.database import Database, outcomes

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "ops" / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONFIG = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "pairmill.json").read_text())
ASKED = {f"alert {rule['alert']}": rule["expr"] for rule in RULES} | {
    f"panel {panel['title']}, {target['refId']}": target["expr"]
    for panel in BOARD["panels"]
    for target in panel["targets"]
}
# not a worker's: Prometheus's own, and of the service `disk`
OTHERS = {"up", "ALERTS", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"}


async def everywhere(origin: str) -> bool:
    return True


Series = tuple[str, dict[str, str]]


@pytest.fixture
def series(db: Database) -> list[Series]:
    """What metrics of real workers and pages give, the numbers of a real queue among them."""
    db.extract(["http://h.example/1.jpg"])
    db.close_batches()
    claim = db.claim("download")
    assert claim
    db.queue("download")[0].submit_download(claim.lease_id, 0, outcomes([0], Outcome.TIMEOUT))
    found = []
    for kind in ("extract", "download", "score", "steward"):
        metrics = Metrics(kind)
        metrics.task("done")
        metrics.rows("success")
        if kind == "download":
            metrics.watch(WebReach(everywhere))
        if kind == "steward":
            metrics.queue(db.queue("steward")[0].counts())
        found += samples(metrics.registry)
    pages = PageMetrics("live")
    pages.request("/", 503, 0.1)
    pages.refused("busy")
    Refresher(db.dsn, Board(Site("live", "a title")), pages.registry)
    return found + samples(pages.registry)


def samples(registry: CollectorRegistry) -> list[Series]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return [(sample.name, sample.labels) for family in families for sample in family.samples]


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics that are named in PromQL, each with its (label, operator, value)."""
    bare = re.sub(r"\b(by|without) \([^)]*\)|\[[^\]]*\]", "", expression)
    named = re.findall(r"([a-zA-Z_]\w*)(?:\{([^}]*)\}|(?![\w(]))(?! *\()", bare)
    return [
        (name, re.findall(r'(\w+)(=|!=)"([^"]*)"', labels))
        for name, labels in named
        if name not in ("or", "and", "unless")
    ]


def fits(labels: dict[str, str], wanted: list[tuple[str, str, str]]) -> bool:
    return all((labels.get(name) == value) == (sign == "=") for name, sign, value in wanted)


def test_selectors_are_found() -> None:
    assert selectors('sum by (kind) (rate(a_total{kind!="x", b="c"}[5m])) / up or vector(0)') == [
        ("a_total", [("kind", "!=", "x"), ("b", "=", "c")]), ("up", []),
    ]  # fmt: skip


def test_everything_that_is_asked_for_exists(series: list[Series]) -> None:
    assert len(ASKED) > 15
    for place, expression in ASKED.items():
        assert selectors(expression), place
        for name, wanted in selectors(expression):
            known = [labels for metric, labels in series if metric == name and fits(labels, wanted)]
            assert known or name in OTHERS, f"{place}: {name} {wanted}"


def test_ring_alert_knows_how_many_slots_there_are(db: Database) -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "RingFull")
    slots = db.value("select count(*) from mill.thumbnail_slot")
    assert rule["expr"].endswith(f">= {slots}")
    assert [p["title"] for p in BOARD["panels"] if f"of {slots}" in p["title"]]


def test_services_that_are_scraped_serve_metrics() -> None:
    scraped = {
        name: target["port"]
        for job in CONFIG["scrape_configs"]
        for target in job["dns_sd_configs"]
        for name in target["names"]
    }
    assert [job["job_name"] for job in CONFIG["scrape_configs"]] == list(scraped)
    ours = {
        name: int(service["environment"]["PAIRMILL_METRICS"].removeprefix("0.0.0.0:"))
        for name, service in COMPOSE["services"].items()
        if "PAIRMILL_METRICS" in service.get("environment", {})
    }
    # a volunteer's container is on a machine of its own, beside no Prometheus
    assert set(ours) == {
        "steward",
        "extract",
        "download",
        "score",
        "live",
        "explore",
        "knn",
        "admin",
    }
    assert scraped == ours | {"disk": 9100}
    jobs = {job for expr in ASKED.values() for job in re.findall(r'job="(\w+)"', expr)}
    assert jobs <= scraped.keys()


def test_files_are_mounted_where_they_are_looked_for() -> None:
    mounts = {
        target: ROOT / source
        for name in ("prometheus", "grafana", "disk")
        for source, target, *_ in (v.split(":") for v in COMPOSE["services"][name]["volumes"])
    }
    prometheus = Path("/etc/prometheus")
    assert mounts[str(prometheus / "prometheus.yml")] == DEPLOY / "prometheus.yml"
    for name in CONFIG["rule_files"]:
        assert mounts[str(prometheus / name)] == DEPLOY / name
    providers = yaml.safe_load(
        mounts["/etc/grafana/provisioning/dashboards/pairmill.yml"].read_text()
    )
    (provider,) = providers["providers"]
    assert (
        mounts[f"{provider['options']['path']}/pairmill.json"] == DEPLOY / "grafana/pairmill.json"
    )
    sources = yaml.safe_load(
        mounts["/etc/grafana/provisioning/datasources/pairmill.yml"].read_text()
    )
    (source,) = sources["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {source["uid"]}
    assert {
        w for e in ASKED.values() for w in re.findall(r'mountpoint="([^"]+)"', e)
    } <= mounts.keys()


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool here (apt-get install prometheus): its own checks were not made")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_files() -> None:
    promtool("check", "config", DEPLOY / "prometheus.yml")


def test_alerts_come_when_they_should() -> None:
    tests = Path(__file__).with_name("alerts_test.yml")
    tried = yaml.safe_load(tests.read_text())["tests"][1]["alert_rule_test"]
    assert {t["alertname"] for t in tried if "exp_alerts" in t} == {r["alert"] for r in RULES}
    promtool("test", "rules", tests)


def test_promtool_reads_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel_{i}", "expr": expr.replace("$__rate_interval", "1m")}
        for i, expr in enumerate(ASKED.values())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)

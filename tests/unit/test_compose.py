"""docker-compose.yml and the Containerfiles, read: no engine is needed, none has run them."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from pairmill.ops.cli import app

ROOT = Path(__file__).parents[2]
WRAPPER = ROOT / "ops/deploy/pairmill-with-dsn"
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONCE = {"migrate", "model"}
# whom the images of others know
USERS = {
    "postgres": "postgres", "prometheus": "nobody", "grafana": "grafana", "disk": "nobody",
    "caddy": "10001:10001",
}  # fmt: skip
PAGES = ("live", "explore", "knn", "admin")
CHOICES = (
    "PAIRMILL_MODEL", "PAIRMILL_PRETRAINED", "PAIRMILL_INDEX", "PAIRMILL_RELEASE",
    *(f"PAIRMILL_{name.upper()}_HOST" for name in PAGES),
)  # fmt: skip
CONTAINERFILES = sorted((ROOT / "ops/deploy").glob("*.Containerfile"))
EXTRAS = {
    re.sub(r".*/src\[(.+?)\].*", r"\1", line)
    for path in CONTAINERFILES
    for line in path.read_text().splitlines()
    if "/src[" in line
}


def test_profiles() -> None:
    profiles: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service["profiles"]:
            profiles.setdefault(profile, set()).add(name)
    assert profiles == {
        "core": {"postgres", "migrate", "steward"},
        "worker": {"extract", "download"},
        "volunteer": {"volunteer"},
        "gpu": {"score"},
        "model": {"model"},
        "web": {"live", "explore", "knn", "admin", "caddy"},
        "monitoring": {"prometheus", "grafana", "disk"},
    }


@pytest.mark.parametrize("name", SERVICES)
def test_service_needs_only_services_of_its_profile(name: str) -> None:
    for other in SERVICES[name].get("depends_on", {}):
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[other]["profiles"])


@pytest.mark.parametrize("name", SERVICES)
def test_image_has_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_image_is_of_one_build_and_this_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert OURS[name]["image"].endswith(f":{version}")
    same = [s["build"] for s in OURS.values() if s["image"] == OURS[name]["image"]]
    assert all(build == OURS[name]["build"] for build in same)


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda p: p.name)
def test_containerfile_is_pinned_and_ends_without_root(path: Path) -> None:
    lines = path.read_text().splitlines()
    bases = [line for line in lines if line.startswith("FROM")]
    assert len(bases) == 2
    assert all(
        re.fullmatch(r"FROM python:3\.11\.\d+-slim-bookworm( AS build)?", base) for base in bases
    )
    steps = [line for line in lines if re.match("[A-Z]+ ", line)]
    assert steps[-2] == "USER 10001:10001"
    assert steps[-1].startswith("CMD ")


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert service["read_only"] is True
    assert "/tmp" in [mount.partition(":")[0] for mount in service["tmpfs"]]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid"} & service.keys()
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    # ours are the image's user, which is not root
    assert service.get("user") == USERS.get(name)


@pytest.mark.parametrize("name", OURS)
def test_build_is_of_a_containerfile_that_exists(name: str) -> None:
    build = OURS[name]["build"]
    assert ROOT / build["dockerfile"] in CONTAINERFILES
    assert build["context"] == "."


@pytest.mark.parametrize("name", SERVICES)
def test_service_says_how_it_is_or_runs_once(name: str) -> None:
    service = SERVICES[name]
    if name in ONCE:
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", [name for name in OURS if name not in (*ONCE, *PAGES)])
def test_worker_has_time_to_hand_its_lease_back(name: str) -> None:
    from pairmill.workers.daemon import RELEASE_SECONDS

    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 2 * RELEASE_SECONDS


@pytest.mark.parametrize("name", PAGES)
def test_page_is_reached_by_its_socket_alone(name: str) -> None:
    """Would catch: a page on a port, whose visitors could say that they are anybody; one that Caddy
    does not lead to, or under a name that the page does not know; the owner's login in a public one."""
    service, caddy = SERVICES[name], (ROOT / "ops/deploy/Caddyfile").read_text()
    assert not {"ports", "network_mode"} & service.keys()
    options = dict(word.split("=", 1) for word in service["command"] if word.startswith("--"))
    socket = options["--bind"].removeprefix("unix:")
    assert socket == f"/run/pairmill/{name}.sock"
    for each in (service, SERVICES["caddy"]):
        assert "sockets:/run/pairmill" in each["volumes"]
    variable, default = f"PAIRMILL_{name.upper()}_HOST", f"{name}.localhost"
    assert options["--host"] == f"${{{variable}:-{default}}}"
    assert variable in SERVICES["caddy"]["environment"]
    (block,) = re.findall(rf"^\{{\${variable}:{default}\}} \{{\n(.*?)^\}}", caddy, re.M | re.S)
    assert re.findall(r"reverse_proxy (\S+)", block) == [f"unix/{socket}"]
    assert ("remote_ip" in block) == (name == "admin")
    assert ("admin_password" in service.get("secrets", [])) == (name == "admin")


@pytest.mark.parametrize("name", ["download", "volunteer"])
def test_download_worker_is_limited(name: str) -> None:
    assert SERVICES[name]["cpus"] == 1
    assert SERVICES[name]["mem_limit"] == "512m"


def test_volunteer_needs_nothing_but_the_environment() -> None:
    volunteer = SERVICES["volunteer"]
    names = ["PAIRMILL_WORKER_DSN", "PAIRMILL_CONTACT", "PAIRMILL_AGREE"]
    assert volunteer["environment"] == dict.fromkeys(names)
    assert not {"secrets", "depends_on", "volumes", "ports"} & volunteer.keys()
    example = (ROOT / "ops/deploy/volunteer.env.example").read_text()
    assert re.findall(r"^(\w+)=(.*)$", example, re.M) == [(name, "") for name in names]


def test_no_secret_is_in_the_file() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|DSN|SECRET|TOKEN", key):
                assert value is None or (
                    key.endswith("_FILE") and value.startswith("/run/secrets/")
                )
    assert not re.search(r"://\S*:\S*@|PASSWORD:", TEXT)
    # a default would be a secret that all share; a demand would be made of every profile
    for variable in re.findall(r"\$\{(\w+)", TEXT):
        assert variable in ("VAR", *CHOICES)
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_every_secret_is_declared_used_and_named_rightly() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        files = {v for k, v in service.get("environment", {}).items() if k.endswith("_FILE")}
        assert files == {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}


def test_images_are_made_of_listed_folders_only() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= let_in
    assert {link.name for link in (ROOT / "src/pairmill").iterdir() if link.is_symlink()} <= let_in
    assert all((ROOT / name).exists() for name in let_in)
    assert not {"secrets", ".git", ".pairmill", ".env"} & let_in


def packages(extras: str) -> set[str]:
    """Every distribution that extras bring, by the metadata of those installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [Requirement(r) for r in project["dependencies"]]
    for extra in extras.split(","):
        todo += [Requirement(r) for r in project["optional-dependencies"][extra]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        for each in map(Requirement, requires(wanted.name) or ()):
            if any(not each.marker or each.marker.evaluate({"extra": e}) for e in {"", *key[1]}):
                todo.append(each)
    return {name for name, _ in seen}


@pytest.mark.parametrize("name", [n for n in OURS if "args" in OURS[n]["build"]])
def test_image_without_gpu_has_no_torch(name: str) -> None:
    build = OURS[name]["build"]
    assert build["dockerfile"] == "ops/deploy/worker.Containerfile"
    found = packages(build["args"]["EXTRA"])
    assert "psycopg-binary" in found  # of an extra of a dependency: what is below is followed
    assert not [p for p in found if p.startswith(("torch", "open-clip", "nvidia", "triton"))]


def test_images_install_extras_that_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    given = {OURS[n]["build"]["args"]["EXTRA"] for n in OURS if "args" in OURS[n]["build"]}
    assert {"${EXTRA}", "score,multilingual,ops", "web,index,score"} == EXTRAS
    named = ",".join(given | EXTRAS - {"${EXTRA}"}).split(",")
    assert set(named) <= known.keys()


def commands() -> list[list[str]]:
    found = [service["command"] for service in OURS.values()]
    asked = [s["healthcheck"]["test"][1:] for s in OURS.values() if "healthcheck" in s]
    found += [command for command in asked if command[0] != "python"]  # a page's, of its metrics
    for path in CONTAINERFILES:
        found += [yaml.safe_load(m) for m in re.findall(r"^CMD (.*)$", path.read_text(), re.M)]
    page = (ROOT / "docs/containers.md").read_text()
    for line in re.findall(r"(?:pairmill-with-dsn|\$admin) ([\w -]+)", page):
        found.append(["pairmill-with-dsn", *line.split()])
    return [[word.partition("=")[0] for word in command] for command in found]


@pytest.mark.parametrize("command", {" ".join(c): c for c in commands()}.values(), ids=" ".join)
def test_command_exists(command: list[str]) -> None:
    """The wrapper runs it; --help instead of the work."""
    assert command[0] == "pairmill-with-dsn"
    words = [word for word in command[1:] if not word.startswith("--")]
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in (word for word in command if word.startswith("--")):
        assert option in shown.output


def wrapped(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The wrapper with a `pairmill` that says what it was given."""
    stand_in = tmp_path / "pairmill"
    stand_in.write_text(
        '#!/bin/sh\necho "${PAIRMILL_WORKER_DSN-}|${DATABASE_URL-}|${PGPASSWORD-}|$*"\n'
    )
    stand_in.chmod(0o755)
    environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    return subprocess.run(
        [WRAPPER, *words], env=environment, capture_output=True, text=True, check=False
    )


def test_wrapper_passes_secrets_on(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://x\n")
    (tmp_path / "password").write_text("p w")
    done = wrapped(tmp_path, "work", "x", WORKER_DSN_FILE=str(tmp_path / "dsn"))
    assert done.stdout == "postgresql://x|||work x\n"
    done = wrapped(
        tmp_path, "migrate", ADMIN_PASSWORD_FILE=str(tmp_path / "password"), ADMIN_HOST="db"
    )
    assert done.stdout == "|postgresql://pairmill_admin@db/pairmill|p w|migrate\n"
    done = wrapped(tmp_path, "work", "x", PAIRMILL_WORKER_DSN="postgresql://y")
    assert done.stdout == "postgresql://y|||work x\n"


def test_wrapper_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dsn").touch()
    for path in (tmp_path / "dsn", tmp_path / "absent"):
        done = wrapped(tmp_path, "work", "x", WORKER_DSN_FILE=str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"pairmill: the secret {path} is empty, or uid")
    done = wrapped(tmp_path, "work", "x", PAIRMILL_WORKER_DSN="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "PAIRMILL_WORKER_DSN is not set" in done.stderr


@pytest.mark.parametrize(
    "profile", ["core", "worker", "volunteer", "gpu", "model", "web", "monitoring"]
)
def test_docker_reads_it(profile: str) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker here: its own check of docker-compose.yml was not made")
    compose = [docker, "compose"]
    if subprocess.run([*compose, "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no `compose` here: its own check of the file was not made")
    done = subprocess.run(
        [*compose, "--project-directory", ROOT, "--profile", profile, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

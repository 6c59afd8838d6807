"""docker-compose.yml and the Containerfiles, read: no engine is needed, none has run them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
CONTAINERFILES = sorted((ROOT / "ops/deploy").glob("*.Containerfile"))


def test_profiles() -> None:
    profiles: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service["profiles"]:
            profiles.setdefault(profile, set()).add(name)
    assert profiles == {
        "core": {"postgres", "migrate", "steward"},
        "worker": {"extract", "download"},
        "volunteer": {"download"},
        "gpu": {"score"},
    }


@pytest.mark.parametrize("name", SERVICES)
def test_image_has_a_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda p: p.name)
def test_containerfile_is_pinned_and_ends_without_root(path: Path) -> None:
    lines = path.read_text().splitlines()
    bases = [line for line in lines if line.startswith("FROM")]
    assert bases
    assert all(
        re.match(r"FROM python:3\.11\.\d+-slim-bookworm( AS build)?$", base) for base in bases
    )
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1] == "10001:10001"


@pytest.mark.parametrize("name", OURS)
def test_service_is_confined(name: str) -> None:
    service = OURS[name]
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service  # the image's, which is not root


@pytest.mark.parametrize("name", SERVICES)
def test_service_says_how_it_is(name: str) -> None:
    once = SERVICES[name].get("restart") == "no"
    assert once or SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_no_secret_is_in_the_file() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|DSN|SECRET|TOKEN", key):
                assert key.endswith("_FILE")
                assert str(value).startswith("/run/secrets/")
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()
    assert "secrets" in (ROOT / ".dockerignore").read_text().split()


def test_every_secret_is_declared_and_used() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])


def test_volunteers_image_has_no_torch() -> None:
    for name in ("download", "extract", "steward"):
        assert OURS[name]["build"]["dockerfile"].endswith("worker.Containerfile")
        assert OURS[name]["build"]["args"]["EXTRA"] in ("download", "extract", "ops")


def commands() -> list[list[str]]:
    found = [service["command"] for service in OURS.values()]
    found += [s["healthcheck"]["test"][1:] for s in OURS.values() if "healthcheck" in s]
    for path in CONTAINERFILES:
        found += [yaml.safe_load(m) for m in re.findall(r"^CMD (.*)$", path.read_text(), re.M)]
    return [[word.partition("=")[0] for word in command] for command in found]


@pytest.mark.parametrize("command", {" ".join(c): c for c in commands()}.values(), ids=" ".join)
def test_commands_exist(command: list[str], tmp_path: Path) -> None:
    """The wrapper runs them; --help instead of the work."""
    from typer.testing import CliRunner

    from pairmill.ops.cli import app

    assert command[0] == "pairmill-with-dsn"
    words = [word for word in command[1:] if not word.startswith("--")]
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in (word for word in command if word.startswith("--")):
        assert option in shown.output


def test_wrapper_passes_secrets_on(tmp_path: Path) -> None:
    (tmp_path / "pairmill").write_text(
        '#!/bin/sh\necho "$PAIRMILL_WORKER_DSN|$DATABASE_URL|$PGPASSWORD|$*"\n'
    )
    (tmp_path / "pairmill").chmod(0o755)
    (tmp_path / "dsn").write_text("postgresql://x\n")
    (tmp_path / "password").write_text("p w")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "WORKER_DSN_FILE": str(tmp_path / "dsn"),
        "ADMIN_PASSWORD_FILE": str(tmp_path / "password"),
        "ADMIN_HOST": "db",
    }
    wrapper = ROOT / "ops/deploy/pairmill-with-dsn"
    done = subprocess.run(
        [wrapper, "work", "x"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "postgresql://x|postgresql://pairmill_admin@db/pairmill|p w|work x\n"


def test_docker_reads_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("docker compose is not installed here: its own check of the file was not made")
    for profile in ("core", "worker", "volunteer", "gpu"):
        command = [
            docker,
            "compose",
            "--project-directory",
            str(ROOT),
            "--profile",
            profile,
            "config",
            "--quiet",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

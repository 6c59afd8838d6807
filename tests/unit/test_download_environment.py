"""The fetch layer as the environment wants it, and what a volunteer agrees to."""

import io
from ipaddress import ip_network
from pathlib import Path

import pytest

from pairmill.workers.download import consent
from pairmill.workers.download.environment import backend
from pairmill.workers.errors import Refused

CONTACT = {"PAIRMILL_CONTACT": "https://example.org/crawler"}


def test_public_web_is_not_asked_without_a_contact() -> None:
    with pytest.raises(Refused, match="PAIRMILL_CONTACT is not set"):
        backend(environment={})
    with pytest.raises(Refused, match="must be ASCII"):
        backend(environment={"PAIRMILL_CONTACT": "jürgen"})
    sent = backend(environment={"PAIRMILL_CONTACT": " a@b.example\r\nX-Evil: 1 "})._head
    assert "(+a@b.example X-Evil: 1)\r\n" in sent  # one line
    backend(environment={"PAIRMILL_CONNECT_TO": "127.0.0.1:80"})  # a web of one's own


def test_network_is_as_the_environment_says() -> None:
    network = backend(
        environment=CONTACT
        | {
            "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8, ::1/128",
            "PAIRMILL_ALLOW_PORTS": "8080",
            "PAIRMILL_PROXY": "http://[::1]:3128/",
            "http_proxy": "http://evil.example:80",  # the usual variables are not read
        }
    ).network
    assert network.allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert network.ports == (80, 443, 8080)
    assert network.proxy == ("::1", 3128)
    assert (
        backend(environment=CONTACT | {"https_proxy": "http://e.example:1"}).network.proxy is None
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"PAIRMILL_ALLOW_NETWORKS": "127.0.0.1/8"},
        {"PAIRMILL_ALLOW_PORTS": "99999"},
        {"PAIRMILL_ALLOW_PORTS": "http"},
        {"PAIRMILL_CONNECT_TO": "127.0.0.1"},
        {"PAIRMILL_PROXY": "host:0"},
        {"PAIRMILL_BACKEND": "curl"},
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(Refused, match=next(iter(wrong))):
        backend(environment=CONTACT | wrong)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return tmp_path


def test_consent_is_asked_for_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    consent.ask(agree=False)
    assert consent.text() in capsys.readouterr().err
    consent.ask(agree=False)  # with nobody at the terminal now
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(consent, "text", lambda: "another text")
    with pytest.raises(Refused, match="not agreed"):
        consent.ask(agree=False)


def test_without_consent_nothing_is_done(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="--agree"):
        consent.ask(agree=False)
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    with pytest.raises(Refused, match="nothing was done"):
        consent.ask(agree=False)
    assert list(state.rglob("*")) == []


def test_consent_of_a_container_is_in_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked / "below"))  # cannot be made
    consent.ask(agree=True)

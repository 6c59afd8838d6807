"""Weights by path and by URL, from a server that misbehaves on purpose."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pairmill.workers.errors import Refused
from pairmill.workers.score import weights

BODY = bytes(range(256)) * 8192  # 2 MB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Answers(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/absent.pt":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path == "/cut.pt" else BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Answers.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def test_weights_are_downloaded_once(server: str) -> None:
    seen: list[tuple[int, int | None]] = []
    url = f"{server}/a%2Fb.pt?token=x"
    path = weights.local(url, SHA256, lambda done, total: seen.append((done, total)))
    assert Path(path).read_bytes() == BODY
    assert Path(path).name == f"{SHA256}-a_2Fb.pt"
    assert seen[-1] == (len(BODY), len(BODY))
    assert weights.local(url, SHA256) == path
    assert len(Answers.asked) == 1


@pytest.mark.parametrize(
    ("name", "sha256", "says"),
    [
        ("a.pt", None, "need --sha256"),
        ("a.pt", "0" * 64, f"has sha256 {SHA256}, and 0000"),
        ("a.pt", "xyz", "'xyz' is no sha256"),
        ("absent.pt", SHA256, "cannot download the weights .*/absent.pt: Not Found"),
        ("cut.pt", SHA256, "cannot download the weights .*/cut.pt"),
    ],
)
def test_what_is_not_what_was_asked_for_is_not_kept(
    server: str, name: str, sha256: str | None, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        weights.local(f"{server}/{name}", sha256)
    assert not weights.folder().exists() or list(weights.folder().iterdir()) == []


def test_nobody_answers(server: str) -> None:
    with pytest.raises(Refused, match=r"cannot download the weights http://127.0.0.1:1/a.pt"):
        weights.local("http://127.0.0.1:1/a.pt", SHA256)


def test_a_kept_file_that_was_changed_is_noticed(server: str) -> None:
    path = Path(weights.local(f"{server}/a.pt", SHA256))
    path.write_bytes(b"other")
    with pytest.raises(Refused, match=r"and .* was asked for"):
        weights.local(f"{server}/a.pt", SHA256)


def test_paths_and_tags(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(BODY)
    assert weights.local("openai", None) == "openai"
    assert weights.local(str(file), SHA256) == str(file)
    with pytest.raises(Refused, match="was asked for"):
        weights.local(str(file), "1" * 64)
    with pytest.raises(Refused, match="cannot read the weights"):
        weights.local(str(tmp_path / "absent.pt"), SHA256)

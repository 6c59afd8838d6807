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
BUSY = {  # Retry-After by path
    "/busy.pt": "7",
    "/busy-until-999999.pt": "Fri, 31 Dec 999999 23:59:59 GMT",
    "/busy-until-overflow.pt": "Fri, 31 Dec 99999999999999999999999999 23:59:59 GMT",
    "/busy-until-9999.pt": "Fri, 31 Dec 9999 23:59:59 GMT",
}


class Answers(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/absent.pt":
            self.send_error(404)
            return
        if self.path.startswith("/busy") and self.asked.count(self.path) < 3:
            self.send_response(429)
            self.send_header("Retry-After", BUSY[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        if self.path == "/pieces.pt":
            self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        size = {"/cut.pt": 1000, "/pieces.pt": len(BODY) // 2}.get(self.path, len(BODY))
        self.wfile.write(BODY[start : start + size])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Answers.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
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


@pytest.mark.parametrize(
    ("name", "shortest", "longest"),
    [("busy.pt", 7, 7), ("busy-until-999999.pt", 1.5, 5), ("busy-until-overflow.pt", 1.5, 5)],
)
def test_a_busy_server_is_waited_for(
    server: str, name: str, shortest: float, longest: float
) -> None:
    waits: list[float] = []
    path = weights.local(f"{server}/{name}", SHA256, wait=waits.append)
    assert Path(path).read_bytes() == BODY
    assert [shortest <= seconds <= longest for seconds in waits] == [True, True]


def test_a_server_that_is_busy_for_too_long_is_refused(server: str) -> None:
    waits: list[float] = []
    with pytest.raises(Refused, match=r"cannot download .*9999.pt: Too Many Requests"):
        weights.local(f"{server}/busy-until-9999.pt", SHA256, wait=waits.append)
    assert waits == []


def test_weights_are_gone_on_with_where_the_connection_broke(server: str) -> None:
    waits: list[float] = []
    path = weights.local(f"{server}/pieces.pt", SHA256, wait=waits.append)
    assert Path(path).read_bytes() == BODY
    assert (len(Answers.asked), waits) == (2, [0.5])


def test_the_proxy_of_the_environment_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.delenv("no_proxy", raising=False)
    path = weights.local("http://weights.example/a.pt", SHA256)
    assert Path(path).read_bytes() == BODY
    assert Answers.asked == ["http://weights.example/a.pt"]


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

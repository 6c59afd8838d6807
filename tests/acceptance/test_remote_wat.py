"""WAT files on a server that does not give them, or not whole."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.database import Database
from support.line import Line
from support.wats import image, packed, page

WAT = packed([page("http://p.example/", [image(f"{n}.jpg", f"Apple {n}")]) for n in range(40)])
# within a member: each is of nearly the same size, and half of the file often lies between two,
# where nothing shows that the rest is missing
CUT = WAT[: WAT.index(b"\x1f\x8b\x08", len(WAT) // 2) - 5]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        if self.path == "/missing.wat.gz":
            self.send_error(404)
            return
        self.send_response(200)  # HTTP/1.0, no length: the end of the connection is the end
        self.end_headers()
        heals = self.path == "/heals.wat.gz" and self.server.asked[self.path] > 1
        self.wfile.write(WAT if heals else CUT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def wats() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_missing_and_a_cut_file_are_tried_again_then_named(
    line: Line, db: Database, wats: Server, tmp_path: Path
) -> None:
    db.admin.execute("update mill.setting set retry_seconds = 0, max_attempts = 3")
    for name in ("missing", "cut", "heals"):
        line.pairmill("wat", "add", f"{wats.url}/{name}.wat.gz")
    steward = line.start("steward", "--url-filter", str(tmp_path / "urls.bloom"))
    line.drain("extract")
    steward.terminate()
    steward.wait()
    assert (tmp_path / "urls.bloom").exists()
    assert wats.asked == {"/missing.wat.gz": 3, "/cut.wat.gz": 3, "/heals.wat.gz": 2}
    status = line.status()
    assert status["wat_files"] == {"done": 2, "discarded": 1}
    assert "was answered with status 404" in status["discarded"][0]["reason"]
    # the cut file gave what it has, once, and says so; the other gave all
    assert status["ended_early"] == {"truncated: the file ends inside a gzip member": 1}
    assert sum(status["pairs"].values()) == 40
    assert 15 <= status["duplicates"] <= 25
    assert status["links"] == 40 + status["duplicates"]

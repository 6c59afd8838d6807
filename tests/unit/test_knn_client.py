"""What the page of releases asks of the kNN service."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pairmill.ops.web.explore.knn_client import KnnClient, NearSample

ALL = {"one_of_each": False, "safe": False}


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[KnnClient, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'[{"id": 7, "similarity": 0.5}]')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield KnnClient(f"http://127.0.0.1:{server.server_port}"), asked
        server.shutdown()


@pytest.mark.parametrize(
    ("ask", "one_of_each", "safe"),
    [
        (lambda client: client.near_text("a", 5), True, True),
        (lambda client: client.near_text("a", 5, safe=False), True, False),
        (lambda client: client.near_sample(7, 5, **ALL), False, False),
        (lambda client: client.near_image(b"x", 5, one_of_each=False, safe=True), False, True),
    ],
    ids=["text", "text, all", "the same picture", "image"],
)
def test_duplicates_and_safety_are_asked_for_apart(
    service: tuple[KnnClient, list[dict[str, Any]]],
    ask: Callable[[KnnClient], list[NearSample]],
    one_of_each: bool,
    safe: bool,
) -> None:
    """Would catch: a row's copies left out as duplicates of each other; what is not known to be
    safe shown to whoever did not ask for it, or never found."""
    client, asked = service
    assert ask(client) == [NearSample(7, 0.5)]
    assert asked[-1]["deduplicate"] is one_of_each
    assert asked[-1]["use_safety_model"] is asked[-1]["use_violence_detector"] is safe

"""The kNN service under load, changes of its files and hostile bodies: it stays up, and says so."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from pairmill.ops.vectors import index as vector_index
from pairmill.ops.web.knn.encoder import Encoder
from pairmill.ops.web.knn.service import Allowed
from pairmill.ops.web.knn.tags import TaggedReleases
from support.made_releases import made_release, rows_of
from support.served_knn import CountingModel, asking, built_index, clustered, made_service, post

ROWS, DIMS = 300, 16
IMAGES = clustered(ROWS, DIMS, 5)
IDS = [5 * i for i in range(ROWS)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_index(tmp_path_factory.mktemp("knn"), IDS, IMAGES)


class HeldModel(CountingModel):
    """A model that computes nothing until it is let go."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors)
        self.entered, self.go = threading.Event(), threading.Event()

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.entered.set()
        assert self.go.wait(60)
        return super().encode_texts(texts)


def test_ten_times_what_it_can_serve_gets_503_at_once(index: Path) -> None:
    """Catches a queue without bounds, a refusal that is no JSON, and a service that stays down."""
    model = HeldModel(IMAGES)
    service = made_service(index, model=model, allowed=Allowed(unsafe=True))
    with asking(service, concurrency=4) as client, ThreadPoolExecutor(80) as threads:
        sent: set[Future[httpx.Response]] = {
            threads.submit(post, client, text=f"row {i}", use_safety_model=False) for i in range(80)
        }
        refused: set[Future[httpx.Response]] = set()
        while len(refused) < 72:
            done, sent = wait(sent, timeout=60, return_when=FIRST_COMPLETED)
            assert done, "requests beyond the queue wait"
            refused |= done
        for each in refused:
            answer = each.result()
            assert (answer.status_code, answer.json()["status"]) == (503, 503)
            assert int(answer.headers["Retry-After"]) > 0
        model.go.set()
        assert [each.result(60).status_code for each in sent] == [200] * 8
        assert post(client, text="row 7", use_safety_model=False).json()[0]["id"] == IDS[7]


def test_texts_that_wait_are_one_batch_and_a_known_one_is_none() -> None:
    """Catches a model that is asked for each text alone, twice for one, or by a queue that grows."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(encoder.text("row 0"))
        await loop.run_in_executor(None, model.entered.wait, 60)
        # nine waiting in a queue of eight, of which two ask for the same
        waiting = [asyncio.create_task(encoder.text(f"row {i}")) for i in (*range(1, 9), 8)]
        await asyncio.sleep(0)
        with pytest.raises(HTTPException) as busy:
            await encoder.text("row 10")
        assert (busy.value.status_code, "Retry-After" in (busy.value.headers or {})) == (503, True)
        model.go.set()
        found = await asyncio.gather(first, *waiting)
        for vector, i in zip(found, (*range(9), 8), strict=True):
            assert float(vector @ IMAGES[i].astype(np.float32)) == pytest.approx(1, abs=1e-3)
        await encoder.text("row 3")
        assert model.batches == [1, 8]
        for i in range(20, 24):  # of 10 kept texts the oldest goes
            await encoder.text(f"row {i}")
        await encoder.text("row 0")
        assert sum(model.batches) == 9 + 4 + 1

    model = HeldModel(IMAGES)
    encoder = Encoder(model, waiting=8, remembered=10)
    encoder.start()
    try:
        asyncio.run(run())
    finally:
        model.go.set()
        encoder.stop()


def test_a_model_that_fails_fails_its_batch_alone() -> None:
    class Failing(CountingModel):
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            if "row 1" in texts:
                raise RuntimeError("out of memory")
            return super().encode_texts(texts)

    async def run() -> None:
        with pytest.raises(HTTPException) as failed:
            await encoder.text("row 1")
        assert failed.value.status_code == 503
        assert (await encoder.text("row 2")).any()

    encoder = Encoder(Failing(IMAGES))
    encoder.start()
    try:
        asyncio.run(run())
    finally:
        encoder.stop()


def test_a_removal_is_seen_while_queries_run(tmp_path: Path) -> None:
    """Catches an index that must be started again, and one that fails in the midst of a removal."""
    folder = built_index(tmp_path, IDS, IMAGES)
    service = made_service(folder, allowed=Allowed(unsafe=True))
    over = threading.Event()
    body = {"embedding_input": IMAGES[9].tolist(), "use_safety_model": False, "deduplicate": False}

    def ask() -> set[int]:
        statuses = {post(client, **body).status_code}
        while not over.is_set():
            statuses.add(post(client, **body).status_code)
        return statuses

    with asking(service) as client, ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        try:
            for i in (9, 30, 31):
                assert IDS[i] in {row["id"] for row in post(client, **body, num_images=ROWS).json()}
                vector_index.remove(folder, [IDS[i]])
                rows = post(client, **body, num_images=ROWS).json()
                assert IDS[i] not in {row["id"] for row in rows}
                assert all("url" in row for row in rows)
                assert post(client, id=IDS[i]).status_code == 404
        finally:
            over.set()
        assert [each.result(60) for each in asked] == [{200}] * 4


def test_a_damaged_index_is_served_from_its_old_files(tmp_path: Path) -> None:
    folder = built_index(tmp_path, IDS, IMAGES)
    said: list[str] = []
    service = made_service(folder, allowed=Allowed(unsafe=True), said=said)
    (folder / "index.json").write_text("{")
    with asking(service) as client:
        assert post(client, id=IDS[3], use_safety_model=False).status_code == 200
    assert said
    assert all("served on" in sentence for sentence in said)


def test_tags_follow_the_release(tmp_path: Path) -> None:
    """Catches tags of yesterday, and a half release that switches safety off."""
    said: list[str] = []
    made_release(tmp_path / "r", rows_of([1, 2], NSFW=["UNLIKELY", "NSFW"]))
    tagged = TaggedReleases([tmp_path / "r"], said.append)
    ids = np.array([1, 2, 3])
    assert tagged.tags.safe(ids).tolist() == [True, False, False]
    made_release(tmp_path / "new", rows_of([1, 2], NSFW=["NSFW", "UNLIKELY"]))
    for path in (tmp_path / "new").iterdir():
        path.replace(tmp_path / "r" / path.name)
    tagged.refresh()
    assert tagged.tags.safe(ids).tolist() == [False, True, False]
    for path in (tmp_path / "r").iterdir():
        path.write_bytes(b"half")
    tagged.refresh()
    assert tagged.tags.safe(ids).tolist() == [False, True, False]
    assert "read before" in said[0]


@pytest.mark.parametrize(
    ("columns", "safe", "peaceful"),
    [
        ({"NSFW": ["UNLIKELY"], "punsafe": [None]}, True, True),
        ({"nsfw": ["unlikely"], "punsafe": [None]}, True, True),
        ({"NSFW": ["something new"], "punsafe": [None]}, False, True),
        ({"NSFW": [None], "punsafe": [None]}, False, True),
        ({"NSFW": [None], "punsafe": [float("nan")]}, False, True),
        ({"NSFW": [None], "punsafe": [0.5]}, True, True),
        ({"NSFW": ["UNLIKELY"], "punsafe": [0.6]}, False, True),
        ({"violence": [0.2]}, True, True),
        ({"violence": [0.7]}, True, False),
    ],
)
def test_what_a_row_must_say_to_be_shown(
    tmp_path: Path, columns: dict[str, Any], safe: bool, peaceful: bool
) -> None:
    """Catches a tag that fails open."""
    made_release(tmp_path / "r", rows_of([1], **columns))
    tags = TaggedReleases([tmp_path / "r"], print).tags
    assert tags.safe(np.array([1, 2])).tolist() == [safe, False]
    # where a release has the column, a row without it is not known to be peaceful
    assert tags.peaceful(np.array([1, 2])).tolist() == [peaceful, "violence" not in columns]


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[httpx.Client]:
    with asking(made_service(index, model=CountingModel(IMAGES))) as made:
        yield made


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
FIELDS = (
    "image", "image_url", "embedding_input", "id", "ids", "queries", "modality", "num_images",
    "num_result_ids", "indice_name", "use_mclip", "deduplicate", "aesthetic_score",
    "aesthetic_weight", "weight",
)  # fmt: skip
BODIES = st.binary(max_size=60) | st.one_of(
    VALUES, st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)
).map(lambda value: json.dumps(value).encode())


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODIES, path=st.sampled_from(["/knn-service", "/metadata"]))
def test_no_body_is_a_fault_of_ours(client: httpx.Client, body: bytes, path: str) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in {200, 400, 404}
    if answer.status_code != 200:
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b'{"text": "\\ud800"}', 400, "no JSON"),
        (b"{}", 400, "nothing is asked"),
        (b'{"text": "row 1", "modality": "text"}', 400, "modality"),
        (b'{"text": "row 1", "num_images": 0}', 400, "num_images"),
        (b'{"text": "row 1", "num_images": 1000000}', 400, "num_images"),
        (b'{"text": "row 1", "indice_name": "none"}', 404, "no index"),
        (b'{"text": "row 1", "aesthetic_score": 12, "aesthetic_weight": 1}', 400, "aesthetic"),
        (b'{"text": "row 1", "aesthetic_score": [], "aesthetic_weight": {}}', 400, "aesthetic"),
        (b'{"text": "' + b"a" * 20_000 + b'"}', 400, "characters"),
        (b'{"id": 1}', 404, "not in this index"),
        (b'{"id": -1}', 400, "SAMPLE_ID"),
        (b'{"embedding_input": [1, 2]}', 400, "16 dims"),
        (b'{"embedding_input": [' + b",".join([b"0"] * 16) + b"]}", 400, "no direction"),
        (b'{"image": "%%%"}', 400, "base64"),
        (b'{"image_url": "http://127.0.0.1/a.jpg"}', 400, "fetches no URLs"),
        (b'{"queries": []}', 400, "parts"),
        (b'{"queries": [{"id": 5, "text": "row 1"}]}', 400, "one of"),
        (b'{"queries": [{"id": 5}, {"id": 5, "weight": -1}]}', 400, "cancel"),
        (b'{"text": "' + b"a" * 15_000_000 + b'"}', 413, "larger"),
    ],
)
def test_errors_are_json_with_a_sentence(
    client: httpx.Client, body: bytes, status: int, said: str
) -> None:
    answer = client.post("/knn-service", content=body)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert said in answer.json()["error"]


def test_other_errors_are_json_too(client: httpx.Client) -> None:
    for answer, status in (
        (client.get("/nothing"), 404),
        (client.get("/knn-service"), 405),
        (client.get("/metadata?id=x"), 400),
        (client.get("/indices-list", headers={"Host": "evil.example"}), 421),
    ):
        assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert client.get("/indices-list").json() == ["a"]

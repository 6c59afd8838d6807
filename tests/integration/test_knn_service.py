"""The kNN service over real HTTP: its answers are those of a search through all rows."""

import base64
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pairmill.ops.errors import UserError
from pairmill.ops.web.knn.service import Allowed, KnnService, read_ratings
from support.made_releases import made_release, rows_of
from support.served_knn import (
    CountingModel,
    ExactSearch,
    asking,
    built_index,
    clustered,
    made_service,
    post,
)

ROWS, DIMS = 900, 24
IMAGES = clustered(ROWS, DIMS, 1)
IMAGES[600:640] = IMAGES[:40]  # exact duplicates
IDS = [7 * i + 3 for i in range(ROWS)]
QUERIES = clustered(30, DIMS, 2).astype(np.float32)
# of every eight rows: what the first release says of them, and the second
LABELS = ["UNLIKELY", "UNLIKELY", "NSFW", "UNSURE", None, None, "UNLIKELY", "UNLIKELY"]
PUNSAFE = [0.1, None, 0.1, 0.1, None, 0.9, 0.7, 0.5]
SAFE = np.array([True, True, False, False, False, False, False, True])
IN_RELEASE = 800  # the rows after these are in none


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> KnnService:
    folder = tmp_path_factory.mktemp("knn")
    index = built_index(folder, IDS, IMAGES)
    own = IDS[:IN_RELEASE]
    columns: dict[str, Any] = {
        "NSFW": [LABELS[i % 8] for i in range(len(own))],
        "punsafe": [PUNSAFE[i % 8] for i in range(len(own))],
    }
    first = made_release(folder / "first", rows_of(own, **columns), 300)
    # the second says of one row of the first that it is unsafe
    others = {"NSFW": ["NSFW", "UNLIKELY"], "punsafe": [None, None]}
    second = made_release(folder / "second", rows_of([IDS[8], IDS[0]], **others), 300)
    for score in range(10):
        np.save(folder / f"rating{score}.npy", np.eye(DIMS, dtype=np.float32)[score])
    made = made_service(
        index,
        [first, second],
        model=CountingModel(IMAGES),
        aesthetics={DIMS: read_ratings(folder)},
    )
    served = made.indexes.get("a")
    served._opened = ExactSearch(served.current(), IDS, IMAGES)
    return made


@pytest.fixture(scope="module")
def client(service: KnnService) -> Iterator[httpx.Client]:
    with asking(service) as made:
        yield made


@pytest.fixture(scope="module")
def permissive(service: KnnService) -> Iterator[httpx.Client]:
    """The same where the admin allows safety to be switched off."""
    allowing = KnnService(
        service.indexes, {}, service.releases, Allowed(unsafe=True), service.decoder
    )
    with asking(allowing) as made:
        yield made


def safe(row: int) -> bool:
    return row < IN_RELEASE and bool(SAFE[row % 8]) and row != 8


def brute_force(query: np.ndarray, wanted: int, *, dedupe: bool, only_safe: bool) -> list[float]:
    """Similarities of the answers by the rules, one row after the other."""
    unit = IMAGES.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = unit @ (query / np.linalg.norm(query))
    passed: list[int] = []
    answers = []
    for row in np.lexsort((np.arange(ROWS), -near)).tolist():
        if only_safe and not safe(row):
            continue
        alike = bool(passed) and (unit[passed] @ unit[row]).max() >= 0.94
        passed.append(row)
        if not (dedupe and alike):
            answers.append(float(near[row]))
    return answers[:wanted]


@pytest.mark.parametrize("wanted", [1, 40, 120])
@pytest.mark.parametrize("dedupe", [True, False])
@pytest.mark.parametrize("only_safe", [True, False])
def test_answers_are_those_of_a_search_through_all_rows(
    permissive: httpx.Client, wanted: int, dedupe: bool, only_safe: bool
) -> None:
    """Catches filters that make answers fall short, duplicates that stay, similarities of another
    vector, and rows that no release calls safe."""
    for query in QUERIES[:2]:
        found = post(
            permissive, embedding_input=query.tolist(), num_images=wanted, deduplicate=dedupe,
            use_safety_model=only_safe,
        ).json()  # fmt: skip
        expected = brute_force(query, wanted, dedupe=dedupe, only_safe=only_safe)
        assert len({row["id"] for row in found}) == len(found) == len(expected)
        assert [row["similarity"] for row in found] == pytest.approx(expected, abs=2e-3)
        for row in found:
            at = IDS.index(row["id"])
            assert (row["url"], row["caption"]) == (
                f"http://h.example/{row['id']}.jpg",
                f"text {row['id']}",
            )
            assert not only_safe or safe(at)
            assert row["releases"] == [
                name
                for name, there in (("first", at < IN_RELEASE), ("second", at in (0, 8)))
                if there
            ]


def test_only_the_first_rows_have_metadata(client: httpx.Client) -> None:
    found = post(client, embedding_input=QUERIES[0].tolist(), num_images=5, num_result_ids=50)
    rows = found.json()
    assert [("url" in row) for row in rows] == [True] * 5 + [False] * (len(rows) - 5)
    assert len(rows) == len(brute_force(QUERIES[0], 50, dedupe=True, only_safe=True))
    assert all(set(row) == {"id", "similarity"} for row in rows[5:])


def test_safety_cannot_be_switched_off_by_the_request(client: httpx.Client) -> None:
    """What is not known to be safe is told by id alone: that it is there, and not where."""
    found = post(
        client, embedding_input=IMAGES[2].tolist(), use_safety_model=False, deduplicate=False,
        num_images=ROWS,
    )  # fmt: skip
    assert len(found.json()) == ROWS
    for row in found.json():
        known = safe(IDS.index(row["id"]))
        assert ("url" in row, "caption" in row) == (known, known), row
    assert "ids alone" in found.headers["X-Query"]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ({"text": "row 16"}, 16),
        ({"text": "row 16", "embedding_input": IMAGES[17].tolist()}, 16),
        ({"text": "", "embedding_input": IMAGES[17].tolist()}, 17),
        ({"queries": [{"text": "row 16"}, {"id": IDS[17], "weight": 0.0}]}, 16),
        ({"queries": [{"id": IDS[2], "weight": 0.0}, {"embedding_input": IMAGES[17].tolist()}]}, 17),
    ],
)  # fmt: skip
def test_what_a_query_is_asked_by(
    client: httpx.Client, asked: dict[str, Any], nearest: int
) -> None:
    """A text that is not empty wins, as in clip-retrieval; parts have weights."""
    first = post(client, **asked).json()[0]
    assert first["id"] == IDS[nearest]
    assert first["similarity"] == pytest.approx(1.0, abs=2e-3)


def test_a_sum_of_parts_is_their_weighted_direction(client: httpx.Client) -> None:
    parts = [{"id": IDS[0], "weight": 2.0}, {"id": IDS[9], "weight": -0.5}, {"text": "row 30"}]
    found = post(client, queries=parts, num_images=3).json()
    unit = IMAGES.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    vector = 2 * unit[0] - 0.5 * unit[9] + unit[30]
    vector /= np.linalg.norm(vector)
    for row in found:
        assert row["similarity"] == pytest.approx(
            float(unit[IDS.index(row["id"])] @ vector), abs=2e-3
        )
    assert not {row["id"] for row in found} & {IDS[0], IDS[9]}


def test_like_a_sample_is_not_the_sample(client: httpx.Client) -> None:
    """Nor one with exactly its embedding, which stands under another id."""
    ids = [row["id"] for row in post(client, id=IDS[1], deduplicate=False).json()]
    assert ids
    assert not {IDS[1], IDS[601]} & set(ids)


def test_beauty_moves_the_order_and_never_the_similarity(client: httpx.Client) -> None:
    """What an image's own score is, its owner computes; re-weighted it was not found in its set."""
    query = QUERIES[3]
    plain = post(client, embedding_input=query.tolist(), num_images=ROWS)
    moved = post(
        client, embedding_input=query.tolist(), num_images=ROWS, aesthetic_score="9",
        aesthetic_weight=3.0,
    )  # fmt: skip
    assert "aesthetic" not in plain.headers.get("X-Query", "")
    assert "aesthetic 9 * 3" in moved.headers["X-Query"]
    unit = IMAGES.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = unit @ (query / np.linalg.norm(query))
    rows = [IDS.index(row["id"]) for row in moved.json()]
    assert [row["similarity"] for row in moved.json()] == pytest.approx(near[rows], abs=2e-3)
    ranked = unit[rows] @ (query / np.linalg.norm(query) + 3.0 * np.eye(DIMS)[9])
    assert (np.diff(ranked) <= 5e-3).all()
    assert [row["id"] for row in plain.json()[:9]] != [row["id"] for row in moved.json()[:9]]


def test_an_image_is_asked_by_its_pixels_alone(client: httpx.Client) -> None:
    """Base64 as the client sends it, and as a page's FileReader makes it; what is none is 400."""
    file = io.BytesIO()
    Image.effect_noise((300, 300), 80).convert("RGB").save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    plain = post(client, image=encoded)
    assert plain.status_code == 200, plain.text
    assert post(client, image=f"data:image/png;base64,{encoded}").json() == plain.json()
    no_image = post(client, image=base64.b64encode(b"no image").decode())
    assert (no_image.status_code, no_image.json()["status"]) == (400, 400)


def test_metadata_by_id(client: httpx.Client, permissive: httpx.Client) -> None:
    ids = [IDS[0], IDS[2], 5, IDS[850]]
    body = json.dumps({"ids": ids, "indice_name": "a"})
    found = client.post("/metadata", content=body).json()
    assert [row["id"] for row in found] == ids
    assert found[0]["metadata"] == {
        "url": f"http://h.example/{IDS[0]}.jpg", "caption": f"text {IDS[0]}",
        "releases": ["first", "second"], "NSFW": "UNLIKELY", "punsafe": 0.1,
    }  # fmt: skip
    assert [row["metadata"] for row in found[1:]] == [{}, {}, {}]
    assert "withheld" in found[1]["why"]
    assert found[2]["why"] == "not in this index"
    query = "&".join(f"id={each}" for each in ids)
    assert client.get(f"/metadata?{query}&indice_name=a").json() == found
    allowed = permissive.get(f"/metadata?{query}").json()
    assert allowed[1]["metadata"]["NSFW"] == "NSFW"
    assert allowed[3]["metadata"]["releases"] == []


def test_any_origin_may_ask_with_any_content_type(client: httpx.Client) -> None:
    for content_type in ("text/plain;charset=UTF-8", "application/x-www-form-urlencoded"):
        answer = client.post(
            "/knn-service",
            content=json.dumps({"id": IDS[0]}),
            headers={"Content-Type": content_type, "Origin": "https://other.example",
                     "Sec-Fetch-Site": "cross-site"},
        )  # fmt: skip
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    asked = client.options("/knn-service", headers={"Origin": "https://other.example"})
    assert (asked.status_code, asked.headers["Access-Control-Allow-Headers"]) == (
        204,
        "Content-Type",
    )


@pytest.fixture
def clip_client() -> Iterator[ModuleType]:
    """clip-retrieval's client, without the package's own imports."""
    found = importlib.util.find_spec("clip_retrieval")
    assert found, "make installs it: pip install --no-deps clip-retrieval==2.45.0"
    assert found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "clip_client.py"
    spec = importlib.util.spec_from_file_location("clip_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clip_client"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["clip_client"]


def test_clip_retrievals_own_client(
    client: httpx.Client, clip_client: ModuleType, tmp_path: Path
) -> None:
    """By its defaults, which ask for beauty, and for an index, a text, an image and a vector."""
    asking = clip_client.ClipClient(url=f"{client.base_url}/knn-service", indice_name="a")
    expected = post(client, text="row 16", aesthetic_score=9, aesthetic_weight=0.5).json()
    found = asking.query(text="row 16")
    assert found == expected
    assert {"url", "caption", "id", "similarity"} <= set(found[0])
    Image.effect_noise((300, 300), 80).convert("RGB").save(tmp_path / "noise.png")
    assert asking.query(image=str(tmp_path / "noise.png"))
    assert asking.query(embedding_input=IMAGES[0].tolist())[0]["id"] == IDS[0]
    # where it cannot be answered it gets JSON that says why, and no JSONDecodeError
    assert "fetches no URLs" in asking.query(image="http://h.example/1.jpg")["error"]


def test_ratings_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no embedding of a rating"):
        read_ratings(tmp_path)

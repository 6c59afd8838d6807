"""The page of the kNN service, clip-retrieval's front behind it, and the command."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.web.knn.encoder import Encoder
from pairmill.ops.web.knn.knn_app import make_knn
from pairmill.ops.web.knn.service import Allowed, KnnService
from pairmill.ops.web.uploads import Decoder
from support import served_knn
from support.made_releases import made_release, rows_of
from support.served_knn import CountingModel, asking, built_index, clustered, made_service

IMAGES = clustered(60, 16, 8)
IDS = list(range(60))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> KnnService:
    folder = tmp_path_factory.mktemp("knn")
    hostile = '<script>alert(1)</script> "x" \u202eevil'
    made = built_index(folder, IDS, IMAGES, text=hostile, url="javascript:alert({})")
    release = made_release(folder / "r", rows_of(IDS, NSFW=["UNLIKELY"] * 50 + ["NSFW"] * 10), 60)
    return made_service(made, [release], model=CountingModel(IMAGES))


@pytest.fixture(scope="module")
def client(service: KnnService) -> Iterator[httpx.Client]:
    with asking(service) as made:
        yield made


def test_text_of_outside_is_no_markup(client: httpx.Client) -> None:
    """Nor does a URL of another scheme become a link."""
    page = client.get("/search", params={"text": "row 3"})
    assert page.status_code == 200
    assert "SAMPLE_ID 3" in page.text
    assert "<script>alert" not in page.text
    assert "\u202e" not in page.text
    assert "&lt;script&gt;alert" in page.text
    assert 'href="javascript:' not in page.text
    assert "<img" not in page.text


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 200, "By text or sample"),
        ("?id=59", 200, "more like this"),
        ("?id=77", 404, "77 is not in this index"),
        ("?id=%3Cb%3E", 400, "a whole number"),
        ("?text=row+1&index=none", 404, "no index of this name"),
        ("?text=" + "a" * 1001, 400, "1,000 characters"),
    ],
)
def test_what_is_wrong_is_said_on_the_page(
    client: httpx.Client, query: str, status: int, said: str
) -> None:
    page = client.get(f"/{query}")
    assert (page.status_code, said in page.text) == (status, True), page.text
    assert page.headers["Content-Type"].startswith("text/html")


def test_search_by_an_image_that_is_sent(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.effect_noise((80, 60), 50).save(file, "PNG")
    found = client.post("/search/image", files={"image": ("a.png", file.getvalue())})
    assert (found.status_code, "results</h2>" in found.text) == (200, True)
    wrong = client.post("/search/image", files={"image": ("a.png", b"no image")})
    assert (wrong.status_code, "no image" in wrong.text) == (400, True)
    assert client.post("/search/image", data={"index": ""}).status_code == 400


def another(service: KnnService, *, unsafe: bool = False) -> KnnService:
    """The same indexes and releases, served by threads of its own."""
    encoders = {served_knn.DIGEST: Encoder(CountingModel(IMAGES))}
    return KnnService(
        service.indexes, encoders, service.releases, Allowed(unsafe=unsafe), Decoder(1)
    )


def test_the_page_shows_no_address_of_what_is_unsafe(service: KnnService) -> None:
    """Whatever is added to its URL by hand."""
    with asking(another(service)) as client:
        page = client.get("/search?text=row+55&unsafe=1").text
    assert "Not known to be safe" in page


def test_clip_retrievals_front_has_its_files_and_nothing_else(
    service: KnnService, tmp_path: Path
) -> None:
    """Catches a path that leaves the folder, a link out of it, and a policy that blocks the page."""
    front = tmp_path / "build"
    (front / "assets").mkdir(parents=True)
    (front / "index.html").write_text("<clip-front></clip-front>")
    (front / "main.js").write_text("1")
    (front / "assets" / "a.png").write_bytes(b"png")
    (tmp_path / "secret.json").write_text("secret")
    (front / "out.json").symlink_to(tmp_path / "secret.json")
    with asking(another(service), front_folder=front) as client:
        first = client.get("/")
        assert "<clip-front>" in first.text
        assert "style-src 'self' 'unsafe-inline'" in first.headers["Content-Security-Policy"]
        assert "http:" not in first.headers["Content-Security-Policy"]
        assert client.get("/config.json").json() == {
            "defaultBackend": "", "defaultIndex": "a", "urlColumn": "url",
        }  # fmt: skip
        assert client.get("/main.js").headers["Content-Type"].startswith("text/javascript")
        assert client.get("/assets/a.png").content == b"png"
        for path in ("/out.json", "/..%2fsecret.json", "/assets/../../secret.json", "/assets"):
            assert client.get(path).status_code == 404
        assert client.get("/indices-list").json() == ["a"]
        assert "Nearest neighbours" in client.get("/search").text
    with asking(another(service), front_folder=front, front_images=True) as client:
        assert (
            "img-src 'self' data: blob: http: https:"
            in client.get("/").headers["Content-Security-Policy"]
        )
    with pytest.raises(UserError, match=r"no index\.html"):
        make_knn(service, front_folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--index", "a={index}"], "--allow-unsafe"),
        (["--index", "a={index}", "--release", "{plain}"], "--allow-unsafe"),
        (["--index", "a={index}", "--release", "{index}"], "is no release"),
        (["--index", "a={plain}", "--allow-unsafe"], "is no index"),
        (["--index", "a={index}", "--index", "a={index}"], "a name of its own"),
        (["--index", "a={index}", "--allow-unsafe", "--aesthetic", "{index}"], "rating0.npy"),
        (["--index", "a={index}", "--allow-unsafe", "--no-model", "--rate", "often"], "--rate"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, options: list[str], said: str) -> None:
    index = served_knn.built_index(tmp_path, IDS, IMAGES)
    plain = made_release(
        tmp_path / "plain", rows_of(IDS, punsafe=pa.nulls(len(IDS), pa.float32())), 60
    )
    filled = [each.format(index=index, plain=plain) for each in options]
    result = CliRunner().invoke(app, ["web", "knn", *filled])
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)


def test_allowed_unsafe_is_asked_for_on_the_page(service: KnnService) -> None:
    with asking(another(service, unsafe=True)) as client:
        assert 'name="unsafe"' in client.get("/").text
        assert "Not known to be safe" not in client.get("/search?text=row+55&unsafe=1").text

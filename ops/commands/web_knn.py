"""pairmill web knn: nearest neighbours over HTTP, as clip-retrieval's clients ask for them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import UserError, extra
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.web.knn.encoder import Encoder
    from pairmill.ops.web.knn.served import ServedIndexes


@app.command("knn")
def knn(
    index: list[str] = typer.Option(
        ..., "--index", metavar="NAME=FOLDER", help="An index to serve, and its name; repeatable."
    ),
    release: list[Path] = typer.Option(
        [], "--release", help="A release's folder, for tags: what is safe, and what is in it."
    ),
    model: str | None = typer.Option(
        None, "--model", help="As in `index query`; each index's own by default."
    ),
    pretrained: str = typer.Option("", "--pretrained", help="As in `index query`."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, or auto."),
    no_model: bool = typer.Option(
        False, "--no-model", help="Load none: queries by embedding and by sample alone."
    ),
    allow_unsafe: bool = typer.Option(
        False, "--allow-unsafe", help="A request may ask for what is unsafe, or has no tag."
    ),
    allow_image_url: bool = typer.Option(
        False, "--allow-image-url", help="Fetch image_url, from public addresses, for visitors."
    ),
    aesthetic: list[Path] = typer.Option(
        [], "--aesthetic", help="A folder with rating0.npy to rating9.npy, for aesthetic_score."
    ),
    front: Path | None = typer.Option(
        None, "--front", help="clip-retrieval's built front, to be the first page."
    ),
    front_images: bool = typer.Option(
        False, "--front-images", help="Its visitors load images from where they lie."
    ),
    rate: str | None = typer.Option(
        None,
        "--rate",
        help="Requests of a client's network, as `limits` writes them, or none. By default"
        " 20/second;300/minute, and none where only this machine can ask.",
    ),
    concurrency: int = typer.Option(
        32, "--concurrency", min=1, max=1000, help="Requests at work at once; as many wait."
    ),
    processes: int = typer.Option(
        0,
        "--processes",
        min=0,
        max=256,
        help="Search in so many processes of their own; 0: in the page's.",
    ),
    bind: str = bind_option("127.0.0.1:8803"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    hosts: list[str] = HOSTS,
    log: bool = LOG,
) -> None:
    """Serve nearest neighbours: clip-retrieval's API, and a page to search by."""
    folders = _named(index)
    # before numpy: a product of 70 vectors takes 1 ms in one thread, 40 in two on a busy machine
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with extra("web,index"):
        from pairmill.ops.web.knn.batch_search import SearchSetup
        from pairmill.ops.web.knn.knn_app import make_knn
        from pairmill.ops.web.knn.search_pool import SearchPool
        from pairmill.ops.web.knn.served import ServedIndexes
        from pairmill.ops.web.knn.service import Allowed, KnnService, read_ratings
        from pairmill.ops.web.knn.tags import TaggedReleases
        from pairmill.ops.web.outside import check_outside
        from pairmill.ops.web.serve import serve
        from pairmill.ops.web.uploads import Decoder
    if allow_image_url:
        check_outside()
    releases = TaggedReleases(release, trouble=_warn)
    if not releases.tags.tagged and not allow_unsafe:
        raise UserError(
            "no --release has a tag NSFW or punsafe, so nothing would be known to be safe, and"
            " nothing shown: name one that has, or --allow-unsafe"
        )
    indexes = ServedIndexes(folders, trouble=_warn)
    ratings = {len(found[0]): found for found in map(read_ratings, aesthetic)}
    service = KnnService(
        indexes,
        {} if no_model else _encoders(indexes, model, pretrained, device),
        releases,
        Allowed(allow_unsafe, allow_image_url),
        Decoder(),
        ratings,
        searches=SearchPool(SearchSetup(folders, release, allow_unsafe), processes, _warn)
        if processes
        else None,
    )
    made = make_knn(
        service,
        rate=_rate(rate, bind, proxy=proxy),
        concurrency=concurrency,
        front_folder=front,
        front_images=front_images,
    )
    serve(made, bind, metrics=metrics, proxy=proxy, hosts=hosts, log=log)


def _named(given: list[str]) -> dict[str, Path]:
    """FOLDER alone has its folder's name."""
    found: dict[str, Path] = {}
    for each in given:
        name, equals, folder = each.partition("=")
        path = Path(folder if equals else each)
        name = name if equals else path.resolve().name
        if not name or name in found:
            raise UserError(f"--index {each}: each index has a name of its own, NAME=FOLDER")
        found[name] = path
    return found


def _rate(given: str | None, bind: str, *, proxy: bool) -> str | None:
    """A limit for each network, unless all that ask are programs of this machine, as `web explore`
    is: its visitors would share one."""
    from limits import parse_many

    usual = "20/second;300/minute"
    if given is None:
        alone = bind.startswith(("127.", "localhost:", "[::1]", "unix:")) and not proxy
        return None if alone else usual
    if given == "none":
        return None
    try:
        parse_many(given)
    except ValueError:
        raise UserError(f"--rate is like {usual}, or none, not {given!r}") from None
    return given


def _encoders(
    indexes: "ServedIndexes", model: str | None, pretrained: str, device: str
) -> dict[str, "Encoder"]:
    """One of each model, by its digest."""
    with extra("score"):
        from pairmill.ops.vectors import query_vectors
        from pairmill.ops.web.knn.encoder import Encoder
    found: dict[str, Encoder] = {}
    for served in indexes.all():
        digest = served.model["digest"]
        if digest not in found:
            loaded = query_vectors.load(dict(served.model), model, pretrained, device)
            found[digest] = Encoder(loaded)
    return found


def _warn(sentence: str) -> None:
    say(sentence, err=True)

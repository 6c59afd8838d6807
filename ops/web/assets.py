"""The static files: read once, sent from memory, and fresh for ever under their digest."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """A static file. packed: its gzip; b"" where that is no shorter."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """The files of static/, by name."""
    found = {}
    for path in (files("pairmill.ops.web") / "static").iterdir():
        suffix = path.name.rpartition(".")[2]
        if path.is_file() and suffix in TYPES:
            body = path.read_bytes()
            packed = gzip.compress(body, 9, mtime=0)
            digest = hashlib.sha256(body).hexdigest()[:16]
            found[path.name] = Asset(
                body, packed if len(packed) < len(body) else b"", TYPES[suffix], f'"{digest}"'
            )
    return found


def static(name: str) -> str:
    """The URL of a static file. Raises KeyError where there is none of this name."""
    return f"/static/{name}?v={assets()[name].etag.strip(chr(34))}"


async def _asset(request: Request) -> Response:
    asset = assets().get(request.path_params["name"])
    if asset is None:
        raise HTTPException(404)
    versioned = request.query_params.get("v") == asset.etag.strip('"')
    headers = {
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
        "Cache-Control": "public, max-age=31536000, immutable" if versioned else "no-cache",
    }
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if asset.packed and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = asset.packed, "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)


def static_route() -> Route:
    return Route("/static/{name}", _asset)

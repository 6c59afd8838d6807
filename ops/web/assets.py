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
    "svg": "image/svg+xml; charset=utf-8",
    "png": "image/png",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
}

FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """Bytes that are sent many times, as they are and as gzip: b"" where that is no shorter."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> "Asset":
        packed = gzip.compress(body, 9, mtime=0)
        digest = hashlib.sha256(body).hexdigest()[:16]
        return cls(body, packed if len(packed) < len(body) else b"", media_type, f'"{digest}"')

    def response(self, request: Request, cache_control: str) -> Response:
        """The bytes, packed where the client takes gzip; 304 where it has them already."""
        headers = {
            "ETag": self.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": cache_control,
        }
        known = request.headers.get("if-none-match", "")
        if known and (
            known == "*"
            or self.etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
        ):
            return Response(status_code=304, headers=headers)
        body = self.body
        if self.packed and takes_gzip(request):
            body, headers["Content-Encoding"] = self.packed, "gzip"
        return Response(body, headers=headers, media_type=self.media_type)


def takes_gzip(request: Request) -> bool:
    """Whether a client's Accept-Encoding names gzip, and not with q=0."""
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = part.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return quality.strip().replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


@cache
def assets() -> dict[str, Asset]:
    """The files of static/, by name."""
    found = {}
    for path in (files("pairmill.ops.web") / "static").iterdir():
        suffix = path.name.rpartition(".")[2]
        if path.is_file() and suffix in TYPES:
            found[path.name] = Asset.of(path.read_bytes(), TYPES[suffix])
    return found


def static(name: str) -> str:
    """The URL of a static file. Raises KeyError where there is none of this name."""
    return f"/static/{name}?v={assets()[name].etag.strip(chr(34))}"


async def _asset(request: Request) -> Response:
    asset = assets().get(request.path_params["name"])
    if asset is None:
        raise HTTPException(404)
    versioned = request.query_params.get("v") == asset.etag.strip('"')
    return asset.response(request, FOR_EVER if versioned else "no-cache")


def static_route() -> Route:
    return Route("/static/{name}", _asset)

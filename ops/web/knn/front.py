"""clip-retrieval's own front, from a folder of its built files: they do not come with Pairmill."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".map": "application/json",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
}


def front_policy(*, images: bool) -> str:
    """The Content-Security-Policy of the front's page, which has a style in it, and sets some.

    images: whether the visitor's browser may load what it finds from where it lies, which tells
    those servers the visitor's address.
    """
    sources = "'self' data: blob:" + (" http: https:" if images else "")
    return (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        f" img-src {sources}; connect-src 'self'; form-action 'none';"
        " frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
    )


def routes(folder: Path, *, images: bool) -> list[BaseRoute]:
    """Its page as /, config.json, and its files. Raises UserError where the folder has none.

    Only files that are there now are served, each under its own name, so that no path leads
    elsewhere.
    """
    if not (folder / "index.html").is_file():
        raise UserError(
            f"{folder} has no index.html: --front names clip-retrieval's front/build, which is in"
            " its wheel"
        )
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in TYPES and not path.is_symlink()
    }
    headers = {"Content-Security-Policy": front_policy(images=images)}

    async def index_page(request: Request) -> Response:
        return _file(files["index.html"], headers)

    async def config(request: Request) -> Response:
        names = request.app.state.service.indexes.names()
        # "": this origin, whatever its name is behind a proxy
        return JSONResponse({"defaultBackend": "", "defaultIndex": names[0], "urlColumn": "url"})

    async def one(request: Request) -> Response:
        path = files.get(request.path_params["path"])
        if path is None:
            raise HTTPException(404)
        return _file(path, headers if path.suffix == ".html" else {})

    return [
        Route("/", index_page),
        Route("/config.json", config),
        Route("/{path:path}", one, methods=["GET"]),
    ]


def _file(path: Path, headers: dict[str, str]) -> Response:
    if not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)

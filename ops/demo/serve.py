"""A web server on loopback that plays other hosts: the demo's site, a WARC file's, a folder's.

    python -m pairmill.ops.demo.serve --warc web.warc.gz

It prints its address once it listens. It answers by the request's Host and path, whatever
the host; the downloader is sent here by PAIRMILL_CONNECT_TO.
"""

import mimetypes
import signal
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer
from warcio.archiveiterator import ArchiveIterator

from pairmill.ops.demo.site import DemoSite, File, build
from pairmill.ops.demo.wat import write_wat

Answers = Callable[[str, str], File | None]  # (host, path with query) -> what to answer


def site_answers(site: DemoSite) -> Answers:
    """The demo's site."""
    return lambda host, path: site.files.get((host, path))


def warc_answers(warc: Path) -> Answers:
    """The responses of a WARC (or ARC) file as they were recorded: the web of that day, dead
    links included."""
    recorded: dict[tuple[str, str], File] = {}
    with warc.open("rb") as stream:
        for record in ArchiveIterator(stream, arc2warc=True):
            if record.rec_type != "response" or record.http_headers is None:
                continue
            url = urlsplit(record.rec_headers.get_header("WARC-Target-URI"))
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            headers = record.http_headers
            recorded.setdefault(
                (url.netloc.lower(), path),
                File(
                    headers.get_header("Content-Type") or "application/octet-stream",
                    record.content_stream().read(),
                    int(headers.get_statuscode() or 200),
                    headers.get_header("Location") or "",
                ),
            )
    return lambda host, path: recorded.get((host, path))


def folder_answers(folder: Path) -> Answers:
    """The files of a folder, for every host; nothing outside it."""
    root = folder.resolve()

    def answer(_: str, path: str) -> File | None:
        file = (root / unquote(urlsplit(path).path).lstrip("/")).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        return File(
            mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes()
        )

    return answer


def server(answers: Answers, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that is bound and not yet serving; port 0: a free one."""

    class SiteHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").lower().removesuffix(":80")
            file = answers(host, self.path) or File("text/plain", b"not found\n", 404)
            self.send_response(file.status)
            self.send_header("Content-Type", file.content_type)
            self.send_header("Content-Length", str(len(file.body)))
            if file.location:
                self.send_header("Location", file.location)
            self.end_headers()
            self.wfile.write(file.body)

        def log_message(self, *_: object) -> None:
            """Nothing: there may be thousands."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # the default of 5 drops connections of a downloader with 64
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Nothing: a client that goes away is no news."""

    return Server(("127.0.0.1", port), SiteHandler)


def main(
    warc: Path | None = typer.Option(None, help="Play the hosts of this WARC file."),
    folder: Path | None = typer.Option(None, help="Serve this folder's files for every host."),
    port: int = typer.Option(0, help="Listen here; by default on a free port."),
    wat: Path | None = typer.Option(None, help="Write the WAT file of the demo's site here first."),
) -> None:
    """Serve until stopped; the demo's own site if nothing else is named."""
    if sum(map(bool, (warc, folder, wat))) > 1:
        raise typer.BadParameter("only one of --warc, --folder and --wat")
    if warc or folder:
        answers = warc_answers(warc) if warc else folder_answers(folder or Path())
    else:
        site = build()
        answers = site_answers(site)
        if wat:
            with wat.open("wb") as file:
                write_wat(site.pages, file)
    listening = server(answers, port)

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    print(f"http://127.0.0.1:{listening.server_port}", flush=True)
    try:
        listening.serve_forever()
    except (KeyboardInterrupt, SystemExit):
        listening.server_close()


if __name__ == "__main__":
    typer.run(main)

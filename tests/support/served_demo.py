"""The demo's line up to a release, and the processes of its pages: what a browser's tests visit."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pairmill.ops.demo import model
from pairmill.ops.demo.serve import site_answers
from pairmill.ops.demo.site import DemoSite, File, build
from pairmill.ops.demo.wat import write_wat
from support.database import Database
from support.line import PATIENCE, Line, Web

MODEL = ("--model", str(model.PATH))
NAME = "pairmill-demo"
CONTACT = "https://crawl.example/about"


@dataclass(eq=False)
class ServedDemo:
    """database: as a superuser. line: the command. releases: the folder of ``release``. later: pages
    of the demo's site that no WAT file had yet; web: all of it. urls: of pages, by their names."""

    database: Database
    line: Line
    releases: Path
    later: DemoSite
    web: DemoSite
    _stack: ExitStack
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def release(self) -> Path:
        return self.releases / "demo"

    @property
    def index(self) -> Path:
        return self.releases.parent / "index"

    def start(self, **options: tuple[str, ...]) -> None:
        """Serve these pages, each with its options, as processes of their own; ``urls`` has their
        addresses."""
        children = {page: self._start(page, *given) for page, given in options.items()}
        self.urls |= {page: _address(page, child) for page, child in children.items()}

    def serve(self, page: str, *options: str) -> str:
        """The address of one more process of a page."""
        return _address(page, self._start(page, *options))

    def _start(self, page: str, *options: str) -> subprocess.Popen[str]:
        program = [sys.executable, *self.line.program, "web", page, "--bind", "127.0.0.1:0"]
        child = subprocess.Popen(
            [*program, *options], env=self.line.environment, text=True, stdout=subprocess.PIPE
        )

        def end() -> None:
            child.terminate()
            child.wait(PATIENCE)
            assert child.stdout
            child.stdout.close()

        self._stack.callback(end)
        return child

    def login(self, *options: str) -> str:
        """A link into the admin's page."""
        command = ("web", "login", "--at", self.urls["admin"], "--json", *options)
        return str(json.loads(self.line.pairmill(*command))["url"])

    def image(self, url: str) -> bytes:
        """The file at an address of the demo's web."""
        parts = urlsplit(url)
        return self.web.files[parts.netloc, parts.path].body

    def batch(self, name: str, count: int = 8) -> list[str]:
        """A batch of new links, ready to be downloaded: images of the demo's web under hosts of
        their own, so no URL is known."""
        found = [link.url for page in self.later.pages for link in page.links if link.matching]
        urls = [f"{url}?{name}" for url in found[:count]]
        self.database.extract(urls, f"{name}.wat.gz", "a picture of something")
        self.database.close_batches()
        return urls


def _address(page: str, child: subprocess.Popen[str]) -> str:
    too_long = threading.Timer(PATIENCE, child.kill)
    too_long.start()
    try:
        assert child.stdout
        for line in child.stdout:
            if line.startswith(f"{page}: http"):
                return line.split()[1].rstrip("/")
        raise AssertionError(f"the page {page} ended with {child.wait()}")
    finally:
        too_long.cancel()


@contextmanager
def served_demo(database: Database, folder: Path) -> Iterator[ServedDemo]:
    """The demo's line over a third of its site, its release and the index of it, and its pages."""
    line = Line(database.dsn, folder / "home")
    line.environment |= {"PAIRMILL_CONTACT": CONTACT}
    whole = build()
    first = DemoSite(pages=whole.pages[:8] + whole.pages[-1:], files=whole.files)
    later = DemoSite(pages=whole.pages[8:-1], files=whole.files)
    with ExitStack() as stack:
        demo = ServedDemo(database, line, folder / "releases", later, whole, stack)
        known = site_answers(whole)

        def answers(host: str, path: str) -> File | None:
            return known(host, path) or known(host, path.partition("?")[0])

        web = stack.enter_context(Web(answers).running())
        line.environment |= web.environment
        run_line(demo, first, "first")
        line.pairmill("release", "build", "demo", "--out", str(demo.release))
        line.pairmill("index", "build", str(demo.release), "--out", str(demo.index))
        knn = ("--index", f"demo={demo.index}", "--release", str(demo.release), "--allow-unsafe")
        demo.start(live=(), admin=(), knn=(*knn, *MODEL))
        demo.start(explore=("--releases", str(demo.releases), "--knn", demo.urls["knn"]))
        yield demo


def run_line(demo: ServedDemo, site: DemoSite, name: str) -> None:
    """Bring these pages' links through the whole line."""
    wat = demo.line.environment["PAIRMILL_HOME"] + f"-{name}.wat.gz"
    with Path(wat).open("wb") as file:
        write_wat(site.pages, file)
    demo.line.pairmill("model", "add", *MODEL, "--name", NAME)
    demo.line.pairmill("wat", "add", wat)
    with demo.line.draining("steward", "extract", "download"):
        scored = demo.line.here("work", "score", "--drain", *MODEL)
    assert scored.returncode == 0, scored.stderr

"""Make docs/watch.svg, the picture of `pairmill status --watch` in the README.

    .venv/bin/python docs/make_watch_svg.py

Real workers run on a made-up crawl and a web server on loopback, with a folder and a database of
their own; the page is drawn while they are at it. It takes minutes, and the extra `score`.
"""

import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from rich.console import Console

from pairmill.ops.admin.connection import connect
from pairmill.ops.admin.watch import Poller, page, snapshot
from pairmill.ops.demo import drawings
from pairmill.ops.demo.model import PATH as MODEL
from pairmill.ops.demo.site import HOSTS, jpeg
from pairmill.ops.demo.wat import WatWriter
from pairmill.ops.queries import rows

OUT = Path(__file__).with_name("watch.svg")
WIDTH = 78  # columns
CHARACTER = 12.2  # of a column's width in the picture: 20 px high, by rich's font_aspect_ratio
WATS, PAGES, LINKS = 100, 20, 20  # files, pages of each, images of each
LATE = 20  # of the files, which are added when the others are extracted: extraction is fast
IMAGES = 100
BATCH = 500  # pairs; of 10,000, as usual, there would be two
VOLUNTEERS = ("ada", "grace", "alan", "edsger")
# what is to be seen: submissions that were accepted, by kind of work
MID_WORK = {"extract": 50, "download": 16, "score": 2}
PAUSE = 3.0  # seconds between two looks
PATIENCE = 1200.0


def svg(reader: Poller) -> str:
    """The page as a terminal would show it."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(page(reader, keys=True))
    drawn = console.export_svg(title="pairmill status --watch", unique_id="watch")
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.S)  # they are on another host
    return re.sub(
        r'x="([\d.]+)" (y="[\d.]+") textLength="([\d.]+)"([^>]*>)((?:&#160;)+)', _moved, drawn
    )


def _moved(text: re.Match[str]) -> str:
    """A text without the spaces before it: some viewers leave them out, and numbers would not stand
    below each other."""
    x, y, length, rest, spaces = text.groups()
    before = CHARACTER * spaces.count(";")
    return f'x="{float(x) + before:.1f}" {y} textLength="{float(length) - before:.1f}"{rest}'


def _make_crawl(folder: Path) -> None:
    """WAT files in folder/wat, and the images of all their links in folder/web."""
    rng = random.Random(0)
    captions = []
    (folder / "web").mkdir()
    (folder / "wat").mkdir()
    for seed in range(IMAGES):
        image, caption, _ = drawings.draw(seed, (400, 300))
        (folder / "web" / f"{seed}.jpg").write_bytes(jpeg(image))
        captions.append(caption)
    for number in range(WATS):
        with (folder / "wat" / f"{number:05}.wat.gz").open("wb") as out:
            writer = WatWriter(out, f"{number:05}.warc.gz")
            for at in range(PAGES):
                seeds = [rng.randrange(IMAGES) for _ in range(LINKS)]
                tags = [
                    f'<img src="/{seed}.jpg?v={rng.randrange(10**6)}" alt="{captions[seed]}">'
                    for seed in seeds
                ]
                host = f"{rng.randrange(500)}.{rng.choice(HOSTS)}"
                writer.add(f"http://{host}/{number}/{at}", "".join(tags), {})


@contextmanager
def _running(environment: dict[str, str], *module: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", *module], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def _wait(connection: psycopg.Connection, wanted: dict[str, int]) -> None:
    """Until so many submissions of these kinds are accepted."""
    give_up = time.monotonic() + PATIENCE
    query = (
        "select kind, count(*)::int as n from mill.submission join mill.task using (task_id)"
        " where submission.state = 'accepted' group by kind"
    )
    while True:
        done = {row["kind"]: row["n"] for row in rows(connection, query)}
        if all(done.get(kind, 0) >= n for kind, n in wanted.items()):
            return
        if time.monotonic() > give_up:
            sys.exit(f"the workers are too slow: accepted are {done}")
        time.sleep(PAUSE)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        environment = os.environ | {"PAIRMILL_HOME": str(folder / "home")}
        environment.pop("DATABASE_URL", None)

        def pairmill(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "pairmill.ops.cli", *command],
                env=environment, text=True, stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
            return done.stdout.strip()

        _make_crawl(folder)
        dsn = pairmill("db", "start")
        stack.callback(pairmill, "db", "stop")
        pairmill("migrate")
        connection = stack.enter_context(connect(dsn))
        connection.execute("update mill.setting set batch_size = %s", (BATCH,))
        pairmill("model", "add", "--model", str(MODEL), "--name", "pairmill-demo")
        wats = [str(path) for path in sorted((folder / "wat").iterdir())]
        pairmill("wat", "add", *wats[LATE:])

        serve = ("pairmill.ops.demo.serve", "--folder", str(folder / "web"))
        web = stack.enter_context(_running(environment, *serve))
        assert web.stdout
        environment |= {
            "PAIRMILL_CONNECT_TO": web.stdout.readline().strip().removeprefix("http://"),
            "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        work = ("pairmill.ops.cli", "work")
        for others in (["steward"], ["extract"], ["score", "--model", str(MODEL)]):
            stack.enter_context(_running(environment, *work, *others))
        for volunteer in VOLUNTEERS:
            own = pairmill("worker", "add", volunteer, "--kind", "download", "--proven")
            told = environment | {"PAIRMILL_WORKER_DSN": own}
            stack.enter_context(_running(told, *work, "download", "--concurrency", "8"))
            if volunteer == VOLUNTEERS[0]:  # the others come when the model is loaded
                _wait(connection, {"score": 1})
        reader = Poller(dsn, snapshot(connection))

        _wait(connection, MID_WORK)
        reader.before = snapshot(connection)
        time.sleep(PAUSE)
        pairmill("wat", "add", *wats[:LATE])
        reader.last = snapshot(connection)
        OUT.write_text(svg(reader), "utf-8")
    print(OUT)


if __name__ == "__main__":
    main()

"""The pages of the demo, as four processes: its line and its releases, looked at in a browser."""

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from pairmill.ops.errors import UserError

FIRST_PORT = 8801
Children = Mapping[str, subprocess.Popen[str]]


def serve(
    newest: Path,
    model: Sequence[str],
    cli: Callable[..., None],
    start: Callable[..., AbstractContextManager[subprocess.Popen[str]]],
    said: Callable[[str], None],
    first_port: int = FIRST_PORT,
) -> None:
    """Serve the four pages on loopback until one of them ends, or Ctrl-C.

    newest: the release to search by meaning, among others in its folder; its index is made beside
    it. model: the options that name its model. cli: runs a command of pairmill. start: makes a
    process of a module and its arguments, which ends with the block. first_port: of four in a row.
    Raises UserError where a page ends.
    """
    index = newest.with_name(f"{newest.name}-index")
    shutil.rmtree(index, ignore_errors=True)
    said("pages")
    cli("index", "build", str(newest), "--out", str(index))
    live, explore, knn, admin = (f"127.0.0.1:{first_port + n}" for n in range(4))
    # no tagger has looked at the demo's images, so none is known to be safe
    safety = ("--release", str(newest), "--allow-unsafe")
    options = {
        "live": ("--bind", live),
        "explore": ("--bind", explore, "--releases", str(newest.parent), "--knn", f"http://{knn}"),
        "knn": ("--bind", knn, "--index", f"{newest.name}={index}", *safety, *model),
        "admin": ("--bind", admin),
    }
    with ExitStack() as stack:
        children = {
            page: stack.enter_context(start("pairmill.ops.cli", "web", page, *given, env={}))
            for page, given in options.items()
        }
        for address in (live, explore, knn, admin):
            _await(f"http://{address}/healthz", children)
        cli("web", "login", "--at", f"http://{admin}")
        said("Ctrl-C ends them")
        while True:
            _require(children)
            time.sleep(0.5)


def _await(url: str, children: Children) -> None:
    while True:
        _require(children)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)


def _require(children: Children) -> None:
    for page, child in children.items():
        if child.poll() is not None:
            raise UserError(f"the page {page} ended with exit code {child.returncode}")

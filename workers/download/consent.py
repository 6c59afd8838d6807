"""What a volunteer agrees to, shown once: at a terminal with a question, else by --agree."""

import hashlib
import os
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from pairmill.workers.errors import Refused
from pairmill.workers.safe_text import say, say_page

HOW = "agree by running this once at a terminal, with --agree, or with PAIRMILL_AGREE=yes"


def text() -> str:
    return (files("pairmill.workers.download") / "consent.txt").read_text("utf-8")


def ask(*, agree: bool) -> None:
    """Return once the text was agreed to, now or before. Raises Refused where it was not.

    Remembered in ~/.local/state/pairmill, by the text's hash: a changed text is shown again.
    """
    digest = hashlib.sha256(text().encode()).hexdigest()
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    file = state / "pairmill" / "agreed"
    with suppress(OSError, UnicodeDecodeError):
        if file.read_text("ascii").strip() == digest:
            return
    say_page(text(), err=True)
    if not agree:
        if not sys.stdin.isatty():
            raise Refused(f"what it does was not agreed to: {HOW}")
        say("Do you agree? [y/N] ", err=True, end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("not agreed: nothing was done")
    with suppress(OSError):  # a container's is read-only: its environment says so each time
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(digest + "\n", "ascii")

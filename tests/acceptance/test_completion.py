"""Shell completion as a shell asks for it: by the process `pairmill`, whose every word is a proposal."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from pairmill.ops.cli import app
from support.database import Database

PAIRMILL = Path(sys.executable).with_name("pairmill")


def proposals(words: str, folder: Path, dsn: str = "") -> Sequence[str]:
    """What is proposed for the last of these words; fails if anything else is said."""
    split = words.split(" ")
    asked = {
        "_PAIRMILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(split) - 1),
        "PAIRMILL_HOME": str(folder / "home"), "PATH": os.environ["PATH"],
    }  # fmt: skip
    if dsn:
        asked["DATABASE_URL"] = dsn
    done = subprocess.run(
        [PAIRMILL], env=asked, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def at_once(words: str, dsn: str) -> Sequence[str]:
    """``proposals`` without a process of its own: a second less."""
    place = len(words.split(" ")) - 1
    asked = {"_PAIRMILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    return CliRunner().invoke(app, env=asked | {"DATABASE_URL": dsn}).output.split()


def test_names_and_numbers_of_the_database_are_proposed(db: Database, tmp_path: Path) -> None:
    db.add_model()
    db.extract(["http://h.example/1.jpg"])
    for name in ("ada", "adele", "bob"):
        db.login("download", name)
    db.login("download", "a name; $(rm)")  # would need the shell's quoting, or harm
    db.admin.execute("select mill.add_wat('CC-MAIN-2024-51', '{b.wat}')")
    db.admin.execute(
        "insert into mill.removal (source, host, reason) values ('h.example', 'h.example', '')"
    )
    expected = {
        "worker rotate a": ["ada", "adele"],
        "worker quarantine b": ["bob"],
        "worker add x --kind st": ["steward"],
        "model show m": ["model-d1"],
        "wat remove ": ["2", "1"],
        "wat list --crawl C": ["CC-MAIN-2024-51"],
        "wat list --state d": ["done", "discarded"],
        "task park ": ["2"],  # 1 is done
        "task list --kind d": ["download"],
        "removal remove ": ["1"],
        "retry --outcome time": ["timeout"],
    }
    assert {words: at_once(f"pairmill {words}", db.dsn) for words in expected} == expected
    assert proposals("pairmill worker rotate a", tmp_path, db.dsn) == ["ada", "adele"]
    # zsh evaluates what it gets, and typer takes a proposal's help for markup
    db.admin.execute("update mill.removal set source = 'h/[/bold]\\\\$(rm)`rm`\"''rm'")
    for shell in ("zsh", "fish"):
        asked = {
            "_PAIRMILL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_TYPER_COMPLETE_ARGS": "pairmill removal remove ", "DATABASE_URL": db.dsn,
        }  # fmt: skip
        shown = CliRunner().invoke(app, env=asked).output
        assert "h/_/bold___" in shown
        assert not set("[]\\$`") & set(shown)


def test_without_a_database_nothing_is_proposed_and_no_server_started(tmp_path: Path) -> None:
    assert proposals("pairmill worker rotate a", tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert at_once("pairmill release build laion-4", "nonsense") == ["laion-400m"]
    assert at_once("pairmill worker rotate a", "nonsense") == []


def test_a_database_that_does_not_answer_is_no_trouble(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        dsn = f"postgresql://nobody:x@127.0.0.1:{silent.getsockname()[1]}/none"
        assert proposals("pairmill worker rotate a", tmp_path, dsn) == []

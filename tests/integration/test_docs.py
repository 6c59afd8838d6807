"""What the pages for users show works as it stands there."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from support.database import Database

DOCS = Path(__file__).parents[2] / "docs"
# new-kind.md makes a kind first: tests/acceptance/test_new_kind.py follows it
PAGES = sorted({*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")} - {DOCS / "new-kind.md"})


def blocks(language: str) -> list[str]:
    return [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
    ]


def commands() -> set[str]:
    """The commands that the pages name, without their arguments."""
    found = set()
    for page in PAGES:
        for line in re.findall(r"pairmill ([a-z]+(?: [a-z]+(?:-[a-z]+)?)?)", page.read_text()):
            words = line.split()
            group = next((g for g in app.registered_groups if g.name == words[0]), None)
            if group or any(c.name == words[0] for c in app.registered_commands):
                found.add(" ".join(words if group else words[:1]))
    return found


def test_sql_of_the_pages_runs(db: Database) -> None:
    db.add_model()
    db.extract([f"http://h{i}.example/{i}.jpg" for i in range(3)])
    db.close_batches()
    db.download()
    db.score()
    found = blocks("sql")
    assert found
    answers = [db.rows(block) for block in found]
    assert answers[0] == [("en", 3, 0.5)]  # test_questions.py has the others


@pytest.mark.parametrize("command", sorted(commands()))
def test_commands_of_the_pages_exist(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0, shown.output

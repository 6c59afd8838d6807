"""docs/new-kind.md as a stranger follows it: a declaration, an SQL file and a folder make a kind of work."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from pairmill.workers.queue import Queue
from support.database import Database
from support.line import Line, wait_until

ROOT = Path(__file__).parents[2]
SPECS = [{"text": "word " * (n % 7) + f"text {n}"} for n in range(120)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree with what the page says: its files, and a line in one of ours."""
    page = (ROOT / "docs" / "new-kind.md").read_text()
    package = tmp_path / "pairmill"
    shutil.copytree(ROOT / "src" / "pairmill", package)
    for folder in ("schema", "workers"):
        shutil.copytree(ROOT / folder, package / folder)
    for folder in ("ops", "migrations"):
        (package / folder).symlink_to(ROOT / folder)
    written = re.findall(r"^`((?:schema|workers)/\S+)`:\n\n```\w+\n(.*?)^```", page, re.M | re.S)
    assert [name for name, _ in written] == [
        "schema/sql/kinds/count_words.sql",
        "workers/count_words/__init__.py",
        "workers/count_words/worker.py",
    ]
    for name, text in written:
        assert not (ROOT / name).exists()
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
    declaration = re.search(
        r"^A line of `KINDS` in `(\S+)`:\n\n```python\nKINDS = \(\n(.*?)\n    \.\.\.", page, re.M
    )
    assert declaration
    declared = package / declaration[1]
    text = declared.read_text()
    declared.write_text(text.replace("KINDS = (\n", f"KINDS = (\n{declaration[2]}\n", 1))
    return tmp_path


@pytest.fixture
def line_of(line: Line, tree: Path, db: Database) -> Line:
    """The command of that tree, on a database that it has migrated."""
    line.environment["PYTHONPATH"] = str(tree)
    assert "count_words" not in {kind for (kind,) in db.rows("select name from mill.task_kind")}
    line.pairmill("migrate")
    return line


def add(line: Line, folder: Path) -> str:
    file = folder / "specs.jsonl"
    file.write_text("".join(json.dumps(spec) + "\n" for spec in SPECS))
    return line.pairmill("item", "add", "count_words", str(file))


def test_the_whole_cost_is_the_pages(line_of: Line, db: Database, tmp_path: Path) -> None:
    """Claimed, submitted, accepted, withdrawn and done again, a bad result rejected; and its logins
    may call nothing but what its file says."""
    assert add(line_of, tmp_path) == "120 items added, 0 known already\n"
    assert add(line_of, tmp_path) == "0 items added, 120 known already\n"
    assert line_of.run("item", "add", "score", "-").returncode == 1  # of batches
    dsn = line_of.pairmill("worker", "add", "ada", "--kind", "count_words").strip()
    ada = Queue(dsn)
    instance = ada.register().instance_id
    claim = ada.claim(instance)
    assert claim
    assert claim.payload == {"item_id": 1, "spec": SPECS[0]}
    ada.submit_item(claim.lease_id, {"words": "two"})
    ada.complete(claim.lease_id)
    ada.close()
    steward = line_of.start("steward")
    db.admin.execute("update mill.setting set retry_seconds = 0")
    line_of.pairmill("work", "count-words", "--drain", "--dsn", dsn)
    check(db)
    assert db.rows("select state, reason from mill.submission order by 1 desc limit 1") == [
        ("rejected", "a result needs a number of words")
    ]
    allowed = db.rows(
        "select p.proname from pg_proc p join mill.worker w on has_function_privilege(w.login, p.oid, 'execute')"
        " where w.name = 'ada' and p.pronamespace in ('mill'::regnamespace, 'api'::regnamespace) order by 1"
    )
    assert {name for (name,) in allowed} == {
        "claim_v1", "complete_v1", "drained_v1", "fail_v1", "heartbeat_v1", "register_v1", "me_v1",
        "release_v1", "show_name_v1", "submit_item_v1",
    }  # fmt: skip

    (number,) = db.rows("select max(submission_id) from mill.submission")[0]
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (number,))
    assert db.value("select count(*) from report.item where result is null") == 1
    line_of.pairmill("work", "count-words", "--drain", "--dsn", dsn)
    check(db)
    row = json.loads(line_of.pairmill("item", "list", "--limit", "1", "--json"))[0]
    assert (row["spec"], row["result"]) == (SPECS[-1], {"words": 2 + 119 % 7})
    assert "count_words" in line_of.pairmill("task", "list", "--kind", "count_words")
    assert steward.poll() is None


def test_killed_again_and_again_it_loses_nothing_and_counts_nothing_twice(
    line_of: Line, db: Database, tmp_path: Path
) -> None:
    db.admin.execute(
        "update mill.setting set lease_seconds = 4, retry_seconds = 0, max_attempts = 100"
    )
    add(line_of, tmp_path)
    line_of.start("steward")
    accepted = "select count(*) from mill.submission where state = 'accepted'"
    dice = random.Random(7)
    for _ in range(4):
        goal = min(len(SPECS), db.value(accepted) + dice.randint(1, 8))
        worker = line_of.start("count-words")
        wait_until(lambda goal=goal: db.value(accepted) >= goal, "more results")
        worker.kill()
        worker.wait()
    line_of.pairmill("work", "count-words", "--drain")
    check(db)
    assert db.value(accepted) == len(SPECS)


def check(db: Database) -> None:
    """Every item has one result that counts, and it is right."""
    wait_until(
        lambda: not db.value("select count(*) from report.item where state <> 'done'"), "all done"
    )
    found = db.rows("select spec, result from report.item order by item_id")
    assert found == [(spec, {"words": len(spec["text"].split())}) for spec in SPECS]

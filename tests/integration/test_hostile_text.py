"""Text that breaks whatever takes it for more than text: refused at the database's door, and, where it is there all the
same, shown as what it is by every command, view and page."""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer

from pairmill.ops import cli
from pairmill.ops.admin import watch
from pairmill.ops.output import plain_console
from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import Malformed
from pairmill.workers.safe_text import plain
from support.database import Database, pair_rows, say_migrated
from support.hostile_text import BEGIN, END, HOSTILE, RAW, columns, disarm, plant, value

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(4)]
# Texts for machines. host_file.rules: a robots.txt in which a changed character would be another rule; merge_row: rows
# of inbox.pair; the counters: languages of pairs, which the inbox has checked
UNGUARDED = (
    {("host_file", "rules")}
    | {("merge_row", c) for c in ("url", "text", "language", "license", "link_kind")}
    | {("batch_count", "language"), ("funnel_change", "language")}
)
# Words that name a stage or a kind, which submit_extract_v1 and `wat add` check: with others in their place no count is
# found. They are planted at the end.
WORDS = ("stage", "link_kind", "link_kinds")
# Counts, as `release build` made them
COUNTS = {("release", "excluded"), ("release", "unfinished")}


def some_of_all(db: Database) -> None:
    """A line with pairs, scores and failures, and a row of what only an admin or a check makes."""
    db.add_model()
    db.extract(URLS, pages=["http://p.example/"] * len(URLS))
    db.close_batches()
    db.download()
    db.score()
    db.add_tagger()
    db.extract(["http://dead.example/a.jpg"], "b.wat.gz")
    db.close_batches()
    db.download(Outcome.HTTP_ERROR)
    db.add_wat("c.wat.gz")
    claim = db.claim("extract")
    assert claim
    db.queue("extract")[0].fail(claim.lease_id, "no such file", retry=False)
    db.add_wat("d.wat.gz")
    db.admin.execute(
        "insert into mill.gold_question (url, by_admin) values ('http://gold.example/', true)"
    )
    db.admin.execute(
        "insert into mill.removal (source, md5, reason) values ('http://h0.example/0.jpg', md5('http://h0.example/0.jpg')::uuid, 'a wish')"
    )
    db.admin.execute("insert into mill.researcher (login, name) values (current_user, 'ada')")
    db.admin.execute(
        "insert into mill.replication (worker_id, task_id, state) select worker_id, (select min(task_id) from mill.task where kind = 'download'), 'void'"
        " from mill.worker where kind = 'download'"
    )
    db.admin.execute("insert into mill.item (kind, spec, digest) values ('extract', '{}', '')")


# ---- the door ------------------------------------------------------------------------------------


def test_every_column_of_text_is_closed_or_takes_no_control_characters(db: Database) -> None:
    """A new column of text without a guard, and a guard that lets some control character in."""
    some_of_all(db)
    found = columns(db)
    assert len(found) > 60
    open_ones = [c for c in found if not (c["guarded"] or c["closed"] or c["partitioned"])]
    assert {(c["name"], c["column"]) for c in open_ones} == UNGUARDED
    for c in (each for each in found if each["guarded"]):
        # without rows, too: the constraint itself is asked
        test = db.value(
            "select pg_get_expr(conbin, conrelid) from pg_constraint where conrelid = %s::regclass and conname like 'no control%%'"
            " and %s = any (select attname from pg_attribute where attrelid = conrelid and attnum = any (conkey))",
            f"{c['schema']}.{c['name']}", c["column"],
        )  # fmt: skip
        others = "".join(
            f", null::text as {x['column']}" for x in found
            if (x["schema"], x["name"]) == (c["schema"], c["name"]) and x["column"] != c["column"]
        )  # fmt: skip
        assert not db.value(
            f"select {test} from (select %s::{c['type']} as {c['column']}{others}) x", value(c)
        ), c
        assert db.value(
            f"select {test} from (select %s::{c['type']} as {c['column']}{others}) x",
            value(c, "é 日本 [b] ❤️‍🔥\\n \\u001b"),
        ), c


def test_the_three_lists_of_control_characters_are_one(db: Database) -> None:
    """mill.plain, the constraints and safe_text.plain: what one lets through another refuses."""
    made = dict(
        db.rows("select i, mill.plain('a' || chr(i) || 'b') from generate_series(1, 12543) i")
    )
    changed = {i for i, text in made.items() if text != f"a{chr(i)}b"}
    test = db.value(
        "select pg_get_expr(conbin, conrelid) from pg_constraint where conname = 'no control characters in version'"
    )
    refused = {
        i
        for (i,) in db.rows(
            f"select i from (select i, 'a' || chr(i) || 'b' as version from generate_series(1, 12543) i) x where not ({test})"
        )
    }
    spaces = {i for i in changed if made[i] == "a b"}
    assert refused <= changed
    assert changed - refused <= spaces  # other white space is a space
    assert {i for i in made if plain(f"a{chr(i)}b") == "a\ufffdb"} == {
        i for i in changed if made[i] == "a\ufffdb"
    }


def test_what_a_worker_says_is_kept_as_one_line(db: Database) -> None:
    """The reason of fail_v1, the version of register_v1, the reason of a rejection: refused, a worker's task would hang."""
    db.extract(URLS)
    db.close_batches()
    queue, instance = db.queue("download")
    claim = db.claim("download")
    assert claim
    queue._one("select api.fail_v1(%s, %s, false)", (claim.lease_id, HOSTILE))
    assert db.value("select reason from mill.task where kind = 'download'") == plain(HOSTILE)
    queue._one("select api.register_v1(%s, 1)", ("1.0\x1b[31m\n",))
    assert "1.0\ufffd[31m " in [
        version for (version,) in db.rows("select version from mill.instance")
    ]
    db.admin.execute("select mill.reject(s, %s) from mill.submission s limit 1", (HOSTILE,))
    assert db.value("select reason from mill.submission where state = 'rejected'") == plain(HOSTILE)
    assert instance


@pytest.mark.parametrize("column", [3, 4, 5, 7, 8])
def test_a_row_with_a_control_character_is_refused(db: Database, column: int) -> None:
    """Of a URL, a text, a language, a licence and a kind of link, from a worker that may copy."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    (row,) = pair_rows(claim.lease_id, URLS[:1])
    changed = list(row)
    changed[column] = f"{row[column] or ''}\x9b"
    if column == 3:
        from support.database import key

        changed[2] = key(changed[3]).bytes
    with pytest.raises(Malformed, match="no control characters"):
        db.queue("extract")[0].copy_pairs([tuple(changed)])


# ---- what is shown -------------------------------------------------------------------------------


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Commands:
    """The commands of `pairmill`, run in this process with an admin's rights."""

    def __init__(self, db: Database, home: Path) -> None:
        self.environment = {
            "DATABASE_URL": db.dsn, "PAIRMILL_HOME": str(home), "HOME": str(home), "PATH": os.environ["PATH"],
            "TERM": "xterm", "COLUMNS": "100",
        }  # fmt: skip

        self._app = typer.main.get_command(cli.app)  # made once: 0.1 s

    def run(self, name: str, *arguments: str, terminal: bool = False) -> tuple[int, str]:
        """Exit code and what was written. An error that no sentence foresees is raised."""
        out, err = Stream(terminal), Stream(terminal)
        with (
            patch.dict(os.environ, self.environment, clear=True),
            patch.object(sys, "argv", ["pairmill", *name.split(), *arguments]),
            patch.object(sys, "stdin", io.StringIO()),
            patch.object(sys, "excepthook", sys.excepthook),
            patch.object(cli, "app", self._app),
            redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended,
        ):  # fmt: skip
            cli.main()
        assert isinstance(ended.value.code, int)
        text = out.getvalue() + err.getvalue()
        shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text) if terminal else text
        assert not RAW.search(shown), (name, RAW.findall(shown), shown[:500])
        return ended.value.code, text


def _commands() -> dict[str, list[Any]]:
    """Every command, and its parameters."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, list[Any]]]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, (*path, name))
        else:
            yield " ".join(path), command.params

    return dict(walk(typer.main.get_command(cli.app), ()))


def _options(parameters: list[Any]) -> set[str]:
    return {option for each in parameters for option in each.opts}


def _unasked(parameters: list[Any]) -> tuple[str, ...]:
    """What a command is given of which this test says nothing: hostile text for every name."""
    names = [HOSTILE for each in parameters if each.required and each.param_type_name == "argument"]
    return (*names, *({"--yes"} & _options(parameters)))


# why a command is not run here
ELSEWHERE = {
    "work": "a worker's lines are tested with its progress",
    "db start": "an embedded server", "db stop": "an embedded server",
    "model add": "it reads weights", "model check": "it reads weights", "model train-head": "it reads ratings",
    "embeddings export": "it prints counts", "index build": "it prints counts",
    "index merge": "it prints counts",
    "index query": "its rows are print_rows'", "index remove": "it prints counts",
    "web live": "it serves", "web explore": "it serves", "web knn": "it serves", "web admin": "it serves",
}  # fmt: skip


def _arguments(db: Database, folder: Path) -> dict[str, tuple[str, ...]]:
    """What a command is given beside its options: names as they are in the database."""
    worker = db.value("select name from mill.worker where kind = 'download'")
    model = db.value("select name from mill.model where kind = 'clip'")
    discarded = db.value("select task_id from mill.task where state = 'discarded'")
    ready = db.value("select max(task_id) from mill.task where state = 'ready'")
    (folder / "urls.csv").write_text('url,"cap\x1b[31m\x9b"\nhttp://127.0.0.1/,x\n')
    (folder / "golden").write_text("http://g.example/\x9b dead\n")
    (folder / "recipe.toml").write_text(
        f"name = {json.dumps(HOSTILE)}\nversion = 1\ndescription = {json.dumps(HOSTILE)}\nlicence = {json.dumps(HOSTILE)}\n"
        f"model = {json.dumps(model)}\npretrained = {json.dumps(db.value('select pretrained from mill.model where name = %s', model))}\n"
        "min_similarity = -1.0\nmin_bytes = 0\n",
    )  # fmt: skip
    return {
        "task discard": (str(ready), "--why", HOSTILE), "task retry": (str(discarded),),
        "worker prove": (worker,), "worker network": (worker, HOSTILE), "worker rotate": (worker,),
        "worker quarantine": (worker, "--yes"), "worker disable": (worker,), "worker add": (HOSTILE, "--kind", "score"),
        "model show": (model,), "model retire": (model,), "model backfill": (model, "--yes"),
        "gold-question add": (str(folder / "golden"),),
        "removal add": (f"http://h.example/{HOSTILE}", "--reason", HOSTILE), "wat add": (f"https://h.example/{HOSTILE}",),
        "fetch": (str(folder / "urls.csv"), "--out", str(folder / "shards"), "--dry-run"),
        "release build": (str(folder / "recipe.toml"), "--out", str(folder / "release")),
        "release show": (str(folder / "release"),), "release check": (str(folder / "release"),),
        "worker me": ("--dsn", db.login("score", f"{HOSTILE} me")),
        "retry": ("--outcome", "list"),
    }  # fmt: skip


# they show what is in the database; so does every command that is called list
SHOWING = {"status", "release show", "model show", "worker me", "web logins"}
# what they change is looked at by those before them
LAST = (
    "release show", "release check", "worker rotate", "worker quarantine", "worker disable", "model retire", "migrate",
)  # fmt: skip


def _planted(db: Database) -> list[dict[str, Any]]:
    """Hostile text in every open column of every table; returns all the columns that hold text."""
    some_of_all(db)
    found = [each for each in columns(db) if (each["name"], each["column"]) not in COUNTS]
    disarm(db)
    db.admin.execute(
        "insert into mill.task (kind, item_id) select 'extract', item_id from mill.item"
    )
    for column in found:
        unguarded = (column["name"], column["column"]) in UNGUARDED
        if not (column["closed"] or column["column"] in WORDS or unguarded):
            plant(db, column)
    return found


def test_every_command_shows_hostile_text_as_text(db: Database, tmp_path: Path) -> None:
    """Markup that a command dies of or swallows, a control sequence that reaches the terminal, a row that is two lines."""
    say_migrated(db.admin)
    found = _planted(db)
    commands, known = Commands(db, tmp_path), _commands()
    given = _arguments(db, tmp_path)
    run = [name for name in known if not {name, name.split()[0]} & ELSEWHERE.keys()]
    asked = {name: given.get(name, _unasked(known[name])) for name in run}
    tables = {name for name in run if name.endswith(" list")}
    assert len(tables) > 8
    for name in sorted(run, key=lambda n: LAST.index(n) if n in LAST else -1):
        code, shown = commands.run(name, *asked[name])
        if code == 1 and name not in ("doctor", "release check"):  # these list faults
            assert len(shown.splitlines()) == 1, (name, shown)  # an error is one sentence
        if name not in tables | SHOWING:
            continue
        if name == "release show":  # after its head, which is YAML: backslashes keep it text
            assert r"\[/bold\] \[abc\]" in shown
            assert "<script>" not in re.sub("`[^`]*`", "", shown.split("---\n")[-1])
        else:
            assert BEGIN in shown, (name, shown)
        commands.run(name, *asked[name], terminal=True)
        if "--json" in _options(known[name]):
            rows = json.loads(commands.run(name, *asked[name], "--json")[1])
            assert HOSTILE.removesuffix(END) in "".join(_texts(rows)), name  # whole, for a script
        if name in tables:
            assert END in shown, (name, shown)
            assert len(shown.splitlines()) == 1 + len(rows), name
    _see_views_and_pages(db)
    for column in (each for each in found if each["column"] in WORDS and not each["closed"]):
        plant(db, column)
    commands.run("status")
    _see_views_and_pages(db)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _see_views_and_pages(db: Database) -> None:
    views = db.rows(
        "select format('%%I.%%I', schemaname, viewname) from pg_views where schemaname in ('report', 'mill')"
    )
    assert len(views) > 10
    for (view,) in views:
        db.rows(f"select * from {view} limit 50")
    poller = watch.Poller(db.dsn, watch.snapshot(db.admin))
    poller.trouble = ""
    for terminal in (False, True):
        console = plain_console()
        console.file = Stream(terminal)
        console._force_terminal = terminal
        console.print(watch.page(poller, keys=terminal))
        shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
        assert not RAW.search(shown), shown

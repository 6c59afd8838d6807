"""Text from outside, as commands and workers show it."""

import ast
import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import pairmill.ops
import pairmill.workers
from pairmill.ops import output
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.queue import Claim
from pairmill.workers.safe_text import (
    json_text,
    markdown,
    plain,
    safe,
    say,
    say_page,
    say_traceback,
)

BIDI = [chr(c) for c in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
# format characters that are seen (signs of Arabic, Syriac and Kaithi), and what has rules of its own
SEEN = {chr(c) for c in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)}


def test_no_control_format_or_surrogate_character_is_shown_as_it_is() -> None:
    shown = {
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        and safe(chr(code)) == chr(code)
    }
    assert shown == SEEN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # terminal: colour, window title, hyperlink, clipboard, C1's CSI, a line drawn over
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]8;;http://e.example\x1b\\x", "\\x1b]8;;http://e.example\\x1b\\x"),
        ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
        ("\x9b2J\x9d0;t\x9c", r"\x9b2J\x9d0;t\x9c"),
        ("all done\rfailed", r"all done\rfailed"),
        # a line of its own
        ("x\n2026-01-01 worker: all is well", r"x\n2026-01-01 worker: all is well"),
        ("x\x85y\u2028z\u2029", r"x\x85y\u2028z\u2029"),
        # an order that is not the written one, and what nobody sees
        ("gnp.\u202etxt", r"gnp.\u202etxt"),
        ("a\u2066b\u2069\u200fc", r"a\u2066b\u2069\u200fc"),
        ("ad\u200dmin\u200b\ufeff\xad", r"ad\u200dmin\u200b\ufeff\xad"),
        ("x\U000e0041\U000e007f", r"x\U000e0041\U000e007f"),
        ("日\ufe00\ufe01\ufe02", "日\ufe00\\ufe01\\ufe02"),
        ("\ud83d", r"\ud83d"),
        # text of any script, and what looks like markup, stays
        ("می‌خواهم", "می‌خواهم"),
        ("क्‍ष", "क्‍ष"),
        ("❤️‍🔥 1️⃣ 葛󠄀", "❤️‍🔥 1️⃣ 葛󠄀"),
        ("Z̈ é שָׁלוֹם", "Z̈ é שָׁלוֹם"),
        ("[/bold] [red]x[/] :smile: {} %s <b>", "[/bold] [red]x[/] :smile: {} %s <b>"),
    ],
)
def test_what_is_hidden_shows_and_what_is_text_stays(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert json.loads(json_text({text: [text]})) == {text: [text]}  # a script gets all of it


def test_json_has_escapes_where_a_terminal_would_obey() -> None:
    found = json_text({"a\x9b": "\u202e\x7fé\U000e0041"}, indent=1)
    assert found == '{\n "a\\u009b": "\\u202e\\u007fé\\udb40\\udc41"\n}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b\n# c", r"a \| b\\n\# c"),
        ("[x](http://e.example) ![y](z)", r"\[x\](http://e.example) !\[y\](z)"),
        (
            "<img src=x> &lt; **b** ~~c~~ `d` _e_",
            r"\<img src=x\> \&lt; \*\*b\*\* \~\~c\~\~ \`d\` \_e\_",
        ),
        ("back\\[slash", r"back\\\[slash"),
        ("laion2b_s34b_b79k CC-BY-4.0 日本語", "laion2b_s34b_b79k CC-BY-4.0 日本語"),
    ],
)
def test_text_in_markdown_is_text(text: str, shown: str) -> None:
    """A licence or a language of a release's README that ends its row, links or is HTML."""
    assert markdown(text) == shown


def test_a_sentence_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    say("a {} b\n", "{x}\x1b")
    say("b {} %s\x9b", err=True)
    say_page("one\x1b\ntwo\n")
    assert capsys.readouterr() == ("a {x}\\x1b b\\n\none\\x1b\ntwo\n", "b {} %s\\x9b\n")


def test_no_line_of_a_traceback_passes_for_one_of_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("x\nextract e: task 1 done\x1b[2J")
    except ValueError as error:
        say_traceback(error)
    lines = capsys.readouterr().err.splitlines()
    assert r"    extract e: task 1 done\x1b[2J" in lines
    assert all(line.startswith("    ") for line in lines)


class _Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_a_row_with_markup_is_shown_as_it_is(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream := _Stream(terminal))
    rows = [{"name": "[/bold]\n", "what": {"[red]": 1}}, {"name": "n" * 9_000, "what": None}]
    output.print_rows(rows, ("name", "what"), as_json=False, empty="")
    lines = stream.getvalue().splitlines()
    assert r"[/bold]\n" in lines[1]
    assert "[red] 1" in lines[1]
    if terminal:
        assert "…" in lines[-1]  # nine thousand characters would push all else away
    else:
        assert len(lines) == 3
        assert lines[2] == "n" * 9_000


def test_text_for_the_database_is_one_line_that_it_takes() -> None:
    hidden = [chr(c) for c in (*range(1, 0x20), *range(0x7F, 0xA0))]
    hidden += [*BIDI, "\u2028", "\u2029", "\ud800"]
    assert {plain(f"a{c}b") for c in hidden} == {"a b", "a\ufffdb"}
    assert plain(" a\n\n b\0 ") == "a b"
    assert plain("می‌خواهم ❤️‍🔥") == "می‌خواهم ❤️‍🔥"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_workers_lines_hold_what_they_name_and_nothing_more(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's name, a file's and a reason that end the live line, colour it or are its markup."""
    monkeypatch.setattr(sys, "stderr", stream := _Stream(terminal))
    monkeypatch.setenv("TERM", "xterm")
    hostile = "[/bold] [red]\x1b]52;c;YQ==\x07\r\nx: all is well\x9b2J"
    with Progress(f"extract {hostile}", Metrics("extract")) as line:
        line.begin(Claim(1, 2, {"location": f"http://h.example/{hostile}"}))
        line.update(1, None, hostile)
        line.say(f"task 2 failed: {hostile}")
        line.idle()
    written = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", written)
    said = [each for each in re.split("[\r\n]+", written) if "task 2 failed" in each]
    shown = r"[/bold] [red]\x1b]52;c;YQ==\x07\r\nx: all is well\x9b2J"
    assert [each.strip() for each in said] == [f"extract {shown}: task 2 failed: {shown}"]


# ---- no way around it ----------------------------------------------------------------------------

# they show nothing that a person or a page wrote
OWN_WORDS = {"demo/model/train.py", "demo/make_wat.py", "demo/serve.py"}
PRINTERS = {"safe_text.py", "output.py"}
UNSAFE = {
    "echo", "secho", "print_exception", "print_exc", "print_json", "from_markup", "basicConfig",
    "getLogger",
}  # fmt: skip


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for package in (pairmill.ops, pairmill.workers):
        folder = Path(next(iter(package.__path__)))
        for path in sorted(folder.rglob("*.py")):
            name = str(path.relative_to(folder))
            if name not in OWN_WORDS:
                tree = ast.parse(path.read_text("utf-8"))
                yield from ((name, n) for n in ast.walk(tree) if isinstance(n, ast.Call))


def _breaks(name: str, call: ast.Call) -> bool:
    """Whether a call prints past ``say``, or lets rich take a str for markup."""
    called = ast.unparse(call.func)
    last = called.rpartition(".")[2]
    plain_text = any(
        each.arg == "markup" and isinstance(each.value, ast.Constant) and each.value.value is False
        for each in call.keywords
    )
    if last in ("Console", "TextColumn"):
        return not plain_text
    if called == "typer.confirm":  # the question may have a name in it
        return not isinstance(call.args[0], ast.Constant) and "safe(" not in ast.unparse(call)
    if last == "print_json":
        return "." in called  # rich's
    if last == "getLogger" and name == "web/database.py":  # a handler that says it, of psycopg's
        return False
    if called == "print":
        return name not in PRINTERS
    return last in UNSAFE or called.startswith(("sys.stdout.write", "sys.stderr.write"))


def test_nothing_is_printed_past_the_one_place() -> None:
    calls = list(_calls())
    assert len(calls) > 3_000
    broken = [f"{name}:{call.lineno} {ast.unparse(call)[:60]}" for name, call in calls
              if _breaks(name, call)]  # fmt: skip
    assert broken == []


@pytest.mark.parametrize(
    "source",
    [
        "print(f'{name} is there')", "Console()", "Console(stderr=True, markup=True)",
        "typer.echo(name)", "traceback.print_exception(error)", "typer.confirm(f'{name}?')",
        "sys.stderr.write(name)", "Text.from_markup(name)", "TextColumn('{task.description}')",
        "console.print_json(text)",
    ],
)  # fmt: skip
def test_a_way_around_it_is_found(source: str) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert _breaks("commands/worker.py", call)

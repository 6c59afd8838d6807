"""The tour of docs/tour.md, as a stranger would walk it."""

from pathlib import Path

import pytest

from support.database import empty_database
from support.tour import PAGE, Step, Tour, agrees, environment, steps


def test_every_answer_of_the_tour_is_given(server: str, tmp_path: Path) -> None:
    """Would catch: a command or a view that a page describes and that answers otherwise."""
    walked = [step for step in steps(PAGE.read_text("utf-8")) if not step.embedded]
    assert len(walked) > 50
    with empty_database(server) as dsn, Tour(tmp_path, environment(dsn), in_process=True) as tour:
        for step in walked:
            tour.run(step)


@pytest.mark.parametrize(
    ("answer", "printed", "same"),
    [
        ("a b", "a   b\n", True),
        ("a b", "a b\nc\n", False),
        ("a … d", "a b c d\n", True),
        ("a … d", "a b c\n", False),
        ("a\n…\nd", "a\nb\nc\nd\n", True),
        ("a\n…\nd", "a\nd\n", True),
        ("a\n…", "b\na\n", False),
        ("", "a\n", False),
        ("[a]", "a\n", False),
    ],
)
def test_answers_are_compared(answer: str, printed: str, same: bool) -> None:
    """Would catch: a tour that every answer passes."""
    assert agrees(tuple(answer.splitlines()), printed) is same


def test_steps_of_a_page_are_read() -> None:
    """Would catch: steps that are passed over in silence."""
    page = "```console\n$ a\n> b\n1\n\n2\n$ c\n```\n```sh\n$ d\n```\n```console embedded\n$ e\npairmill: no\n```"
    assert list(steps(page)) == [
        Step(2, "a\nb", ("1", "", "2")),
        Step(7, "c", ()),
        Step(13, "e", ("pairmill: no",), embedded=True),
    ]
    assert [step.fails for step in steps(page)] == [False, False, True]

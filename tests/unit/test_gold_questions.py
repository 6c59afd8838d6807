"""The file of gold questions that an admin writes."""

import pytest

from pairmill.ops.commands.trust import read_gold_questions
from pairmill.ops.errors import UserError

SHA256 = "ab" * 32


def test_a_line_is_a_url_and_its_answer() -> None:
    text = f"# mine\n\nhttp://a.example/1.jpg  {SHA256}\nhttps://b.example/2.jpg dead\n"
    assert read_gold_questions(text) == [
        ("http://a.example/1.jpg", bytes.fromhex(SHA256)),
        ("https://b.example/2.jpg", None),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("http://a.example/1.jpg", "line 2 is not"),
        ("ftp://a.example/1.jpg dead", "line 2 is not"),
        ("http://a.example/1.jpg alive", "'alive' is no sha256"),
        (f"http://a.example/1.jpg {SHA256}00", "is no sha256"),
        (f"http://a.example/{'x' * 2048} dead", "line 2 is not"),
        ("dead", "line 2 is not"),
    ],
)
def test_what_is_wrong_is_named(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_gold_questions(f"http://a.example/0.jpg dead\n{line}\n")

"""What a command says when it cannot go on."""

from collections.abc import Iterator
from contextlib import contextmanager


class Problem(Exception):
    """One sentence for the person who ran the command: what is wrong, and what to do."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of what comes with an extra, or with several: says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Problem(f"{error.name} is not installed: pip install 'pairmill[{name}]'") from None

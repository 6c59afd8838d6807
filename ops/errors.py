"""The error that a command ends with: one sentence for the person who ran it."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """One sentence for the person who ran the command: what is wrong, and what to do."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports of an optional dependency: its absence is a UserError that names the extra (or
    several, separated by commas) to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'pairmill[{name}]'") from None

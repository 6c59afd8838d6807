"""What a revision's downgrade loses, in the revision's own words.

A revision may have a function ``losses(connection)``, which is called before its ``downgrade()``
and returns a ``Loss`` for each thing that does not survive; and a tuple ``carried``, the tables
(``mill.note``) and columns (``mill.batch.note``) that it drops and whose data it keeps elsewhere.
Whatever it says, ``pairmill migrate`` compares the catalogs before and after.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """count: how many; 0 is no loss. what: of which, in words, as in "values of mill.batch.note".
    refused: whether it cannot be carried over, as an outcome that the older list does not know;
    the migration then wants --force."""

    count: int
    what: str
    refused: bool = False

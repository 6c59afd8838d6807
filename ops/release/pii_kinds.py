"""The kinds of personal data as bits of the column ``pii``, without the libraries that find it."""

from collections.abc import Collection
from typing import get_args

from pairmill.ops.errors import UserError
from pairmill.ops.release.recipe_keys import PiiKind

KINDS: tuple[str, ...] = get_args(PiiKind)


def mask(kinds: Collection[str]) -> int:
    """The bits of these kinds. Raises UserError for a kind that there is not."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UserError(f"no kind of personal data is {unknown[0]!r}: known are {', '.join(KINDS)}")
    return sum(1 << i for i, kind in enumerate(KINDS) if kind in kinds)

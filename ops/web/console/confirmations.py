"""Confirmations: a token says what somebody was shown, and lets them do that and nothing else."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping

from pairmill.ops.errors import UserError

SECONDS = 600


def fingerprint(numbers: object) -> str:
    """The same for the same numbers, and no other."""
    text = json.dumps(numbers, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Confirmations:
    """Makes tokens and checks them. Its key lives as long as the process: after a restart each
    page asks once more."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock

    def token(self, whose: str, action: str, arguments: Mapping[str, str], shown: str) -> str:
        """A token for one session, action, arguments and fingerprint of what was shown."""
        until = int(self._clock()) + SECONDS
        return f"{until}.{shown}.{self._sign(whose, action, arguments, shown, until)}"

    def shown(self, token: str, whose: str, action: str, arguments: Mapping[str, str]) -> str:
        """The fingerprint of what was shown. Raises UserError where the token is another's, of
        something else, or older than ten minutes."""
        until, _, rest = token.partition(".")
        shown, _, given = rest.partition(".")
        if until.isascii() and until.isdecimal() and len(until) < 15:
            wanted = self._sign(whose, action, arguments, shown, int(until))
            if hmac.compare_digest(given.encode(), wanted.encode()) and int(until) > self._clock():
                return shown
        raise UserError(
            "this confirmation is older than ten minutes, or not for this: go back, look again and"
            " confirm what it says then; nothing was done"
        )

    def _sign(
        self, whose: str, action: str, arguments: Mapping[str, str], shown: str, until: int
    ) -> str:
        text = json.dumps([whose, action, dict(arguments), shown, until], sort_keys=True)
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

"""What fetching a URL is, whoever does it: one call, one named outcome, never an exception."""

from dataclasses import dataclass
from typing import Protocol

from pairmill.schema.outcomes import Outcome


@dataclass(frozen=True)
class Fetched:
    """How a fetch ended.

    outcome: SUCCESS with a body, or why not. http_status: the last that a server gave, or
    None. body: the bytes, decoded from any Content-Encoding; None unless SUCCESS.
    """

    outcome: Outcome
    http_status: int | None = None
    body: bytes | None = None


class Fetcher(Protocol):
    """A backend. Cancellation is the only thing that it may raise."""

    async def fetch(self, url: str) -> Fetched: ...


class FetchFailed(Exception):
    """Within a backend: the fetch ends here, with this outcome."""

    def __init__(self, outcome: Outcome, http_status: int | None = None) -> None:
        super().__init__(outcome.name)
        self.outcome = outcome
        self.http_status = http_status

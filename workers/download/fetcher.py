"""Fetching one URL: permission, redirects and judgement, whichever backend makes the requests."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.directives import header_refusal
from pairmill.workers.download.budget import Room
from pairmill.workers.download.optout import Evidence
from pairmill.workers.download.url import Target, header_reference, parse, redirected
from pairmill.workers.http.headers import retry_after

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes. connect: name, TCP and TLS of one hop; read: until the next bytes;
    total: the whole URL with its redirects; body: on the wire, and again once decoded."""

    connect: float = 10.0
    read: float = 10.0
    total: float = 30.0
    body: int = 10_000_000


@dataclass(frozen=True)
class Answer:
    """One response. lines: its header section, names in lower case, a character for each byte.
    body: decoded from any Content-Encoding; empty where the status is not 2xx."""

    status: int
    lines: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first line of this name, or ""."""
        return next((value for key, value in self.lines if key == name), "")


class Backend(Protocol):
    """Makes one request and reads one response; follows no redirect, keeps its own deadlines for
    connecting and reading, and pins the address that was checked."""

    async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
        """at_most: a longer body is cut there, and is no failure. Raises FetchFailed, and
        nothing else whatever a server does."""

    async def close(self) -> None:
        """Let go of the connections that are kept; ``get`` may be called again."""


class FetchFailed(Exception):
    """The fetch ends here, with this outcome."""

    def __init__(
        self,
        outcome: Outcome,
        http_status: int | None = None,
        *,
        evidence: Evidence | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(outcome.name)
        self.outcome = outcome
        self.http_status = http_status
        self.evidence = evidence
        self.retry_after = retry_after
        self.redirected = False  # whether it was another URL that failed than the one asked for


@dataclass(frozen=True)
class Fetched:
    """How a fetch ended.

    outcome: SUCCESS with a body, or why not. http_status: the last that a server gave, or
    None. body: the bytes, decoded from any Content-Encoding; None unless SUCCESS. evidence: of
    OPTED_OUT. retry_after: seconds that the server asked for, or None. source: the URL that was
    asked last, to which redirects may have led; None where none was.
    """

    outcome: Outcome
    http_status: int | None = None
    body: bytes | None = None
    evidence: Evidence | None = field(default=None, compare=False)
    retry_after: float | None = field(default=None, compare=False)
    source: str | None = field(default=None, compare=False)


Permit = Callable[[str], Awaitable[None]]


async def everything(url: str) -> None:
    """The permit that asks nobody, for a web of one's own."""


def heed_headers(answer: Answer, source: str) -> None:
    """Raises FetchFailed, OPTED_OUT, where the headers of a redirect or an image refuse."""
    leads_on = answer.status in REDIRECTS or 200 <= answer.status < 300
    if leads_on and (refused := header_refusal(answer.lines)):
        evidence = Evidence(*refused, source, time.time())
        raise FetchFailed(Outcome.OPTED_OUT, answer.status, evidence=evidence)


def heed_nothing(answer: Answer, source: str) -> None:
    """For what is no image: headers are about the use of what they come with."""


class Fetcher:
    """Fetches images by a backend, each hop only with a permit."""

    def __init__(
        self, backend: Backend, limits: Limits | None = None, permit: Permit = everything
    ) -> None:
        self._backend = backend
        self._limits = limits or Limits()
        self._permit = permit

    async def fetch(self, url: str, room: Room) -> Fetched:
        """GET an image, following up to five redirects. Cancellation is all that it may raise."""
        source: str | None = None

        async def permit(hop: str) -> None:
            nonlocal source
            source = hop
            await self._permit(hop)

        fetched = Fetched(Outcome.TIMEOUT)
        with trio.move_on_after(self._limits.total):
            try:
                fetched = _judged(await follow(self._backend, url, room, permit, heed_headers))
            except FetchFailed as failed:
                fetched = Fetched(
                    failed.outcome,
                    failed.http_status,
                    evidence=failed.evidence,
                    retry_after=failed.retry_after,
                )
        return replace(fetched, source=source)


async def follow(
    backend: Backend,
    url: str,
    room: Room,
    permit: Permit = everything,
    heed: Callable[[Answer, str], None] = heed_nothing,
    *,
    at_most: int | None = None,
) -> Answer:
    """The answer at the end of at most five redirects. permit: asked before each hop. heed: told
    each answer, with its URL. Both may raise FetchFailed. Raises FetchFailed."""
    try:
        target = parse(url)
    except ValueError:
        raise FetchFailed(Outcome.INVALID_URL) from None
    for hop in range(MAX_REDIRECTS + 1):
        try:
            await permit(url)
            answer = await backend.get(target, room, at_most=at_most)
            heed(answer, url)
        except FetchFailed as failed:
            failed.redirected = hop > 0
            raise
        location = answer.header("location")
        if answer.status not in REDIRECTS or not location:
            return answer
        try:
            url = redirected(url, header_reference(location))
            target = parse(url)
        except ValueError:
            raise FetchFailed(Outcome.REDIRECT_REFUSED, answer.status) from None
    raise FetchFailed(Outcome.TOO_MANY_REDIRECTS, answer.status)


def _judged(answer: Answer) -> Fetched:
    status = answer.status
    if later := asks_to_wait(answer):
        return Fetched(later.outcome, status, retry_after=later.retry_after)
    if not 200 <= status < 300:
        error = Outcome.SERVER_ERROR if 500 <= status < 600 else Outcome.HTTP_ERROR
        return Fetched(error, status)
    if not answer.body:
        return Fetched(Outcome.EMPTY, status)
    return Fetched(Outcome.SUCCESS, status, answer.body)


def asks_to_wait(answer: Answer) -> FetchFailed | None:
    """RETRY_LATER where the server says so: 429, or 503 with Retry-After; else None."""
    after = answer.header("retry-after")
    if answer.status == 429 or (answer.status == 503 and after):
        return FetchFailed(Outcome.RETRY_LATER, answer.status, retry_after=retry_after(after))
    return None

"""Reads a host's opt-out files before its images are fetched, and remembers them.

A fetch costs at most one further request a hop: robots.txt before a host's first image,
tdmrep.json before its second, ai.txt before its third, each once a day. So a host that has one
image in a batch is asked for one file, and over time all three of it are known.

What robots.txt cannot be had means is RFC 9309's, 2.3.1: a 4xx, or redirects without end, allow;
a 5xx, or no answer, forbid. A header section or body that our parser cannot read has no parseable
rules (2.3.1.1), so it allows, for some minutes: our parser closes no host. What has no status is no
answer. The other two are statements that a host may make: where they cannot be had nothing was
said.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.fetcher import Answer, Backend, FetchFailed, asks_to_wait, follow
from pairmill.workers.download.optout import (
    FILES,
    MAX_FILE_BYTES,
    ROBOTS,
    Evidence,
    condensed,
    refusal,
    text_of,
)
from pairmill.workers.download.url import parse

KNOWN_SECONDS = 86_400.0  # RFC 9309, 2.4: no more than 24 hours
UNKNOWN_SECONDS = 300.0
FILE_SECONDS = 15.0  # for one file with its redirects; half of a URL's total
REMEMBERED_BYTES = 8_000_000  # of rules, with about 200 bytes a file beside them
NEWS_BYTES = 1_000_000  # of rules that wait to be shared; the database takes 8 MB at once
SHARED_RULES = 65_536  # characters; longer ones are this process's alone
# robots.txt could not be asked for since the host cannot be reached: the image neither
UNREACHABLE = frozenset(
    (
        Outcome.DNS_FAILED, Outcome.ADDRESS_REFUSED, Outcome.PORT_REFUSED, Outcome.CONNECT_FAILED,
        Outcome.CONNECT_TIMEOUT, Outcome.TLS_FAILED, Outcome.CERTIFICATE_REFUSED,
        Outcome.RETRY_LATER,
    )
)  # fmt: skip
UNREADABLE = frozenset((Outcome.BAD_RESPONSE, Outcome.TOO_LARGE))


@dataclass(frozen=True)
class HostFile:
    """An opt-out file of a host as it was read. origin: scheme://authority. file: robots.txt,
    tdmrep.json or ai.txt. status: the HTTP status, None where there was no answer. rules: as
    ``condensed`` gives them; empty where it forbids nothing. read_at: seconds of time.time()."""

    origin: str
    file: str
    status: int | None
    rules: str
    read_at: float


class Permission:
    """A ``fetcher.Permit`` for one process, over one backend.

    ``learn`` takes files that other workers read, ``news`` gives those that this one has read.
    """

    def __init__(self, backend: Backend, *, budget: MemoryBudget | None = None) -> None:
        self._backend = backend
        self._budget = budget or MemoryBudget()
        self._known: OrderedDict[tuple[str, str], HostFile] = OrderedDict()
        self._size = 0
        self._unknown: dict[tuple[str, str], float] = {}  # until when it is not asked for again
        self._asking: dict[tuple[str, str], trio.Event] = {}
        self._news: list[HostFile] = []
        self._news_size = 0
        self.requests = 0  # made for files, redirects not counted

    async def __call__(self, url: str) -> None:
        """Return if the URL may be fetched. Raises FetchFailed: OPTED_OUT with its evidence,
        OPT_OUT_UNKNOWN, or the outcome that kept the host from being reached."""
        target = parse(url)
        origin = target.origin
        while (asked := self._asking.get((origin, ROBOTS))) is not None:
            await asked.wait()
        for file in FILES:
            if self._find(origin, file) is None and not self._in_vain(origin, file):
                await self._ask(origin, file)
                break
        for file in FILES:
            self._check(origin, file, target.url)

    def learn(self, files: Iterable[HostFile]) -> None:
        """Take files that others read; a newer reading of this process stays."""
        for file in files:
            known = self._known.get((file.origin, file.file))
            if known is None or known.read_at < file.read_at:
                self._remember(file)

    def news(self) -> list[HostFile]:
        """Files that this process has read since the last call, for other workers; files beyond
        ``NEWS_BYTES`` are left out."""
        news, self._news, self._news_size = self._news, [], 0
        return news

    def forget_doubts(self) -> None:
        """Ask again at once for files that could not be had: the network was down."""
        self._unknown.clear()

    def _check(self, origin: str, name: str, url: str) -> None:
        file = self._find(origin, name)
        if file is None:
            if name == ROBOTS:
                raise FetchFailed(Outcome.OPT_OUT_UNKNOWN)
            return
        if rule := refusal(name, file.rules, url):
            evidence = Evidence(name, rule, origin + FILES[name], file.read_at)
            raise FetchFailed(Outcome.OPTED_OUT, evidence=evidence)

    def _find(self, origin: str, name: str) -> HostFile | None:
        file = self._known.get((origin, name))
        if file is None or file.read_at + KNOWN_SECONDS < time.time():
            return None
        self._known.move_to_end((origin, name))
        return file

    def _remember(self, file: HostFile) -> None:
        key = file.origin, file.file
        if old := self._known.pop(key, None):
            self._size -= _size(old)
        self._known[key] = file
        self._size += _size(file)
        while self._size > REMEMBERED_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._size -= _size(oldest)

    async def _ask(self, origin: str, name: str) -> None:
        """Read one file, for all fetches that wait for it. Raises FetchFailed where the host cannot
        be reached."""
        done = self._asking[origin, name] = trio.Event()
        try:
            answer = await self._read(origin, name)
        except FetchFailed as failed:
            if failed.outcome is Outcome.INTERNAL_ERROR and name == ROBOTS:
                raise  # a fault of ours says nothing of the host
            if _unreadable(failed):
                read_at = time.time() - KNOWN_SECONDS + UNKNOWN_SECONDS
                self._remember(HostFile(origin, name, failed.http_status, "", read_at))
                return
            unreachable = failed.outcome in UNREACHABLE and not failed.redirected
            if not (unreachable and name == ROBOTS):
                self._doubt(origin, name)
            if name == ROBOTS:
                if unreachable:
                    raise
                raise FetchFailed(Outcome.OPT_OUT_UNKNOWN, failed.http_status) from None
            return
        finally:
            del self._asking[origin, name]
            done.set()
        rules = condensed(name, text_of(name, answer.body)) if answer else ""
        file = HostFile(origin, name, answer.status if answer else None, rules, time.time())
        self._remember(file)
        if len(file.rules) <= SHARED_RULES and self._news_size < NEWS_BYTES:
            self._news.append(file)
            self._news_size += _size(file)

    async def _read(self, origin: str, name: str) -> Answer | None:
        """A file's answer; None where there is none, which allows. Raises FetchFailed."""
        self.requests += 1
        url = origin + FILES[name]
        with trio.move_on_after(FILE_SECONDS), self._budget.room() as room:
            try:
                # one byte more, by which a file that was cut is told
                answer = await follow(self._backend, url, room, at_most=MAX_FILE_BYTES + 1)
            except FetchFailed as failed:
                if failed.outcome in (Outcome.TOO_MANY_REDIRECTS, Outcome.REDIRECT_REFUSED):
                    return None
                raise
            if later := asks_to_wait(answer):
                raise later
            if answer.status >= 500:
                raise FetchFailed(Outcome.SERVER_ERROR, answer.status)
            return answer
        raise FetchFailed(Outcome.TIMEOUT)

    def _in_vain(self, origin: str, name: str) -> bool:
        """Whether a file is being asked for by another, or could not be had a moment ago."""
        key = origin, name
        return key in self._asking or self._unknown.get(key, 0.0) > trio.current_time()

    def _doubt(self, origin: str, name: str) -> None:
        now = trio.current_time()
        if len(self._unknown) > 10_000:
            self._unknown = {key: until for key, until in self._unknown.items() if until > now}
        self._unknown[origin, name] = now + UNKNOWN_SECONDS


def _unreadable(failed: FetchFailed) -> bool:
    """Whether a host answered, with no error of its own, what our parser cannot read."""
    answered = failed.http_status is not None and failed.http_status < 500
    return answered and failed.outcome in UNREADABLE


def _size(file: HostFile) -> int:
    """Bytes, about: a character outside Latin-1 takes up to four."""
    return len(file.rules) * (1 if file.rules.isascii() else 4) + 200

"""Whether the web answers this machine: a line that is down is no dead link.

A row of hosts that fail may be dead, or the machine's network may be down; the outcomes look the
same. So an outcome without an answer waits until something is known to have answered after it:
another host, or one that had answered before and is asked for its robots.txt again. Where none of
them answers the network is down: no URL is begun, and what failed meanwhile is asked again.

``CHECK_HOSTS`` distinct hosts in a row make the check: where three hosts in ten are dead, four in a
thousand million rows of sixteen are, so a batch of 10,000 has no check for nothing. In a batch of
dead hosts alone each check that says "up" doubles the row that makes the next, up to
``MOST_CHECK_HOSTS``: 45 checks for 10,000. A network that swallows packets fails nobody before the
time-outs of 10 s and more; there ``SILENT_SECONDS`` without an answer make the check.
"""

import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from ipaddress import ip_address

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.fetcher import Backend, Fetched, FetchFailed
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.download.url import parse
from pairmill.workers.reach import Outage, outage_since

CHECK_HOSTS, MOST_CHECK_HOSTS = 16, 256
FEW_HOSTS = 4  # fewer, all together, tell nothing
SILENT_SECONDS = 4.0
CHECK_SECONDS = 5.0  # for the answer of a check; with the silence, an outage is said within ten
HEAD_START = 1.0  # of the first host that is asked, before the others are
ASKED = 4  # hosts of a check
KNOWN = 64  # hosts that answered last
PAUSES = 2.0, 10.0  # seconds between the checks of an outage, the first and the longest
HOLD_SECONDS = 600.0  # a batch is held so long, and then handed back
STRANGE_SECONDS = 60.0  # the same where no host has ever answered: the hosts may be dead
FORGET_SECONDS = 3600.0  # after so long the hosts that answered once may be dead themselves
NO_ANSWER = frozenset(
    (
        Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT, Outcome.TLS_FAILED,
        Outcome.CONNECTION_LOST, Outcome.TIMEOUT, Outcome.OPT_OUT_UNKNOWN,
    )
)  # fmt: skip
Ask = Callable[[str], Awaitable[bool]]


class Verdict(Enum):
    """Of a check. UNSURE: the web answers, but may have been away a moment ago."""

    UP = "up"
    UNSURE = "unsure"
    DOWN = "down"


class NetworkDown(Exception):
    """No host has answered for as long as a batch is held. known: whether any ever did."""

    def __init__(self, *, known: bool) -> None:
        super().__init__("no host answers")
        self.known = known


def is_doubtful(outcome: Outcome, http_status: int | None) -> bool:
    """Whether an outcome may be the network's and not the host's. A status is an answer, but that
    of a body which broke off came before."""
    if outcome in (Outcome.TIMEOUT, Outcome.CONNECTION_LOST, Outcome.HOST_GIVEN_UP):
        return True
    return outcome in NO_ANSWER and http_status is None


class WebReach:
    """What one process knows of its network, from batch to batch. ask: whether the host of this
    origin answers now. forget: called when the network is back, to forget what failed. believes:
    whether a list of which no host answers is taken for one of dead hosts, and not refused."""

    name = "network"
    back = "hosts answer again"
    advice = "no other is asked before one answers, and nothing of this time is a dead link"

    def __init__(
        self, ask: Ask, forget: Callable[[], None] = lambda: None, *, believes: bool = False
    ) -> None:
        self._ask, self._forget, self._believes = ask, forget, believes
        self._known: OrderedDict[str, None] = OrderedDict()  # origins that answered, the last last
        self._failed: dict[str, None] = {}  # origins, since the last answer
        self._heard = 0.0  # trio's time of the last answer
        self._enough = CHECK_HOSTS
        self._candidates: list[str] = []  # of the check that found the network down
        self._credulous = False  # this list's hosts are taken for dead
        self._down: float | None = None  # time.monotonic() of the last answer before an outage

    def outage(self) -> Outage | None:
        """From any thread."""
        down = self._down
        if down is None:
            return None
        sentence = "no host answers since {}: is this machine's network down?"
        return outage_since(time.monotonic() - down, sentence, "")

    @property
    def down(self) -> bool:
        return self._down is not None

    def begin(self) -> None:
        """A list of URLs begins; before, nothing may have been asked for hours."""
        self._heard = trio.current_time()
        self._failed.clear()
        self._enough, self._credulous = CHECK_HOSTS, False

    def note(self, url: str, fetched: Fetched) -> None:
        """Learn from how a fetch ended, as soon as it has."""
        if is_doubtful(fetched.outcome, fetched.http_status):
            if fetched.outcome is not Outcome.HOST_GIVEN_UP and (origin := _origin(url)):
                self._failed[origin] = None
        elif fetched.http_status is not None:
            self._answered(_origin(url) if fetched.source == url else "")

    @property
    def suspicious(self) -> bool:
        """Whether so many hosts have failed in a row that nothing may be begun before a check."""
        return len(self._failed) >= self._enough and not self._credulous

    @property
    def silent(self) -> bool:
        """Whether nothing was heard for so long that a check is due, where any host is asked."""
        return trio.current_time() - self._heard >= SILENT_SECONDS and not self._credulous

    async def check(self, asked: Iterable[str]) -> Verdict:
        """Whether the web answers. asked: URLs of the moment, for where no host is known."""
        if self._credulous:
            return Verdict.UP
        origins = [*self._known] or [*self._failed, *filter(None, map(_origin, asked))]
        if not self._known and len(set(origins)) < CHECK_HOSTS:
            return Verdict.UP  # a few hosts that nobody has heard of are dead
        began, failed = trio.current_time(), len(self._failed)
        found, silent = await self._any(origins)
        if found:
            for origin in silent:
                self._known.pop(origin, None)
            self._heard = max(self._heard, began)
            self._failed = dict([*self._failed.items()][failed:])  # since then
            self._enough = min(2 * self._enough, MOST_CHECK_HOSTS)
            return Verdict.UNSURE if silent else Verdict.UP
        if self._heard > began:  # something else has answered meanwhile
            return Verdict.UNSURE
        if len({*origins, *self._failed, *map(_origin, asked)}) < FEW_HOSTS:
            return Verdict.UP
        self._candidates = origins
        self._down = time.monotonic() - (trio.current_time() - self._heard)
        return Verdict.DOWN

    async def wait(self, alive: Callable[[], None] = lambda: None) -> None:
        """Until the web answers again. alive: called often. Raises NetworkDown after
        HOLD_SECONDS."""
        known = bool(self._known)
        until = trio.current_time() + (HOLD_SECONDS if known else STRANGE_SECONDS)
        pause = PAUSES[0]
        while self.down:
            alive()
            await trio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])
            if (await self._any(self._candidates))[0]:
                self._back()
            elif trio.current_time() >= until:
                if not self._believes:
                    if not known:
                        self._back()
                    raise NetworkDown(known=known)
                if not known or self._lasted >= FORGET_SECONDS:
                    self._back()
                    self._credulous = True

    async def ready(self) -> None:
        """Return when a batch may be begun: the web answers, or has been silent for so long that
        the hosts which answered once may be what is dead."""
        while self.down:
            try:
                await self.wait()
            except NetworkDown:
                if self._lasted >= FORGET_SECONDS:
                    self._known.clear()
                    self._back()

    @property
    def _lasted(self) -> float:
        outage = self.outage()
        return outage.seconds if outage else 0.0

    def _answered(self, origin: str) -> None:
        self._heard = trio.current_time()
        self._failed.clear()
        self._enough, self._credulous = CHECK_HOSTS, False
        if origin:
            self._known[origin] = None
            self._known.move_to_end(origin)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def _back(self) -> None:
        self._down = None
        self._heard = trio.current_time()
        self._failed.clear()
        self._enough = CHECK_HOSTS
        self._forget()

    async def _any(self, origins: list[str]) -> tuple[bool, list[str]]:
        """Whether one of a few of these answers, and those that failed before it did."""
        chosen = random.sample(origins, min(ASKED, len(origins)))
        found, failed, one_failed = False, list[str](), trio.Event()
        with trio.move_on_after(CHECK_SECONDS):
            async with trio.open_nursery() as nursery:

                async def ask(origin: str) -> None:
                    nonlocal found
                    if await self._ask(origin):
                        found = True
                        nursery.cancel_scope.cancel()
                    else:
                        failed.append(origin)
                        one_failed.set()

                nursery.start_soon(ask, chosen[0])
                with trio.move_on_after(HEAD_START):
                    await one_failed.wait()
                for origin in chosen[1:]:
                    nursery.start_soon(ask, origin)
        return found, failed


def asking(backend: Backend, resolver: object = None) -> Ask:
    """An ``Ask`` by a backend: any answer to a request for the host's robots.txt, which may always
    be asked for. resolver: whose cache must not stand in for a name server that is away."""
    budget = MemoryBudget()
    cached = resolver if isinstance(resolver, CachedResolver) else None

    async def ask(origin: str) -> bool:
        target = parse(origin + "/robots.txt")
        if cached and not _is_address(target.host):
            cached.forget(target.host)
            # the system may remember the name too, and no name that nobody has asked for
            if not await cached.answers(f"pairmill-{secrets.token_hex(4)}.{target.host}"):
                return False
        with budget.room() as room:
            try:
                await backend.get(target, room, at_most=1)
            except FetchFailed as failed:
                return not is_doubtful(failed.outcome, failed.http_status)
        return True

    return ask


def _origin(url: str) -> str:
    try:
        target = parse(url)
    except ValueError:
        return ""
    return target.origin if target.host else ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True

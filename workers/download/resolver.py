"""The addresses of names: the system's resolver, asked once for each name, a few at a time."""

import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

Resolver = Callable[[str, int], Awaitable[list[str]]]

# getaddrinfo does not give a record's TTL: most of the web's records have five minutes
KNOWN_SECONDS = 300.0
MISSING_SECONDS = 60.0  # a name that does not exist: RFC 2308 caps it at hours, a batch is minutes
TROUBLE_SECONDS = 5.0  # a resolver that did not answer
LOOKUP_SECONDS = 5.0  # resolv.conf's own default, of one attempt
AT_ONCE = 16  # look-ups; img2dataset's users overran their resolvers with hundreds
MOST_ADDRESSES = 32  # of a name; a hostile answer has thousands
REMEMBERED = 20_000  # names, about 300 bytes each; a batch has fewer
# of the look-ups, unanswered ones: then the user is told once
TROUBLE_SHARE, TROUBLE_AFTER = 0.1, 200

# The errors of getaddrinfo whose reason is the name, and not the resolver.
_MISSING = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)


class SystemResolver:
    """getaddrinfo in threads of its own: a silent resolver must not use up those that the
    worker talks to its database in."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._limiter = trio.CapacityLimiter(at_once)

    async def __call__(self, host: str, port: int) -> list[str]:
        found = await trio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            limiter=self._limiter,
            abandon_on_cancel=True,
        )
        return list(dict.fromkeys(str(address[4][0]) for address in found))[:MOST_ADDRESSES]


@dataclass
class _Answer:
    """What is known of a name until ``expires``; ``error`` where it has no addresses."""

    addresses: list[str]
    error: str
    expires: float


class CachedResolver:
    """A resolver in front of another, for one event loop.

    Asks for a name once, also when many want it at the same time, and remembers the answer:
    five minutes, or one for a name that does not exist, or five seconds where nobody answered. Of
    names with addresses and without, the least recently used are forgotten. A look-up ends after
    ``lookup_seconds``.

    warn: called once with a sentence that names the resolver, when more than a tenth of at
    least 200 look-ups were not answered. (A name that does not exist is an answer.)

    Raises OSError where a name has no addresses, UnicodeError where it cannot be one.
    """

    def __init__(
        self,
        ask: Resolver | None = None,
        *,
        warn: Callable[[str], None] = lambda sentence: None,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        self._ask = ask
        self._warn = warn
        self._lookup_seconds = lookup_seconds
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking: dict[str, trio.Event] = {}
        self._lookups = self._unanswered = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        name = host.lower()
        while (answer := self._known(name)) is None:
            if (asked := self._asking.get(name)) is not None:
                await asked.wait()  # the look-up may have been cancelled: then it is ours
            else:
                await self._look_up(name, port)
        if answer.error:
            raise OSError(answer.error)
        return answer.addresses

    def forget(self, host: str) -> None:
        self._answers.pop(host.lower(), None)

    def forget_failures(self) -> None:
        """Look names up again that had no address: the network was down."""
        known = ((name, answer) for name, answer in self._answers.items() if not answer.error)
        self._answers = OrderedDict(known)

    async def answers(self, name: str) -> bool:
        """Whether a name server answers now, if only that there is no such name. Never remembered,
        nor counted."""
        self._ask = self._ask or SystemResolver()
        try:
            with trio.fail_after(self._lookup_seconds):
                await self._ask(name, 0)
        except (OSError, UnicodeError, trio.TooSlowError) as error:
            return isinstance(error, socket.gaierror) and error.errno in _MISSING
        return True

    def _known(self, name: str) -> _Answer | None:
        answer = self._answers.get(name)
        if answer is None or answer.expires <= trio.current_time():
            return None
        self._answers.move_to_end(name)
        return answer

    async def _look_up(self, name: str, port: int) -> None:
        done = self._asking[name] = trio.Event()
        self._ask = self._ask or SystemResolver()  # its limiter belongs to the running loop
        try:
            with trio.fail_after(self._lookup_seconds):
                answer = _Answer(await self._ask(name, port), "", KNOWN_SECONDS)
        except trio.TooSlowError:
            answer = _Answer([], f"no answer in {self._lookup_seconds:.0f} s", TROUBLE_SECONDS)
        except OSError as error:
            missing = isinstance(error, socket.gaierror) and error.errno in _MISSING
            seconds = MISSING_SECONDS if missing else TROUBLE_SECONDS
            answer = _Answer([], str(error) or "look-up failed", seconds)
        finally:
            del self._asking[name]
            done.set()
        if not answer.addresses and not answer.error:
            answer.error, answer.expires = "no addresses", MISSING_SECONDS
        self._count(unanswered=answer.expires == TROUBLE_SECONDS)
        answer.expires += trio.current_time()
        self._answers[name] = answer
        self._answers.move_to_end(name)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def _count(self, *, unanswered: bool) -> None:
        self._lookups += 1
        self._unanswered += unanswered
        if self._lookups >= TROUBLE_AFTER and self._unanswered > TROUBLE_SHARE * self._lookups:
            self._warn(
                f"{self._unanswered} of {self._lookups} name look-ups were not answered by"
                f" {', '.join(system_resolvers()) or 'the resolver'}: a caching one on this"
                " machine (unbound, systemd-resolved) is kinder to it and faster"
            )
            self._warn = lambda sentence: None


def system_resolvers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The addresses of the name servers that this machine asks; none where it does not say."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]

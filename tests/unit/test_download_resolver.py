"""Names are asked for once, a few at a time, and for no longer than they should."""

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pairmill.workers.download import resolver as module
from pairmill.workers.download.resolver import CachedResolver, SystemResolver, system_resolvers

GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Names:
    """A resolver that counts what it is asked, and takes a second for each."""

    def __init__(self, **answers: list[str] | Exception) -> None:
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.most = self.asking = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked[host] += 1
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            await trio.sleep(1)
        finally:
            self.asking -= 1
        answer = self.answers.get(host.partition(".")[0], ["192.0.2.1"])
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=MockClock(autojump_threshold=0))


async def fails(resolver: CachedResolver, host: str) -> str:
    with pytest.raises(OSError) as caught:
        await resolver(host, 80)
    return str(caught.value)


def test_a_name_is_asked_for_once_and_again_when_it_is_old() -> None:
    async def test() -> None:
        names = Names(a=["192.0.2.1", "2001:db8::1"])
        resolver = CachedResolver(names)
        for host in ("a.example", "A.Example", "a.example"):
            assert await resolver(host, 80) == ["192.0.2.1", "2001:db8::1"]
        assert names.asked == {"a.example": 1}
        await trio.sleep(module.KNOWN_SECONDS + 1)
        await resolver("a.example", 443)
        assert names.asked == {"a.example": 2}

    run(test)


def test_many_at_the_same_time_ask_once() -> None:
    async def test() -> None:
        names = Names()
        resolver = CachedResolver(names)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(resolver, "a.example", 80)
        assert names.asked == {"a.example": 1}
        assert trio.current_time() < 2

    run(test)


def test_who_waits_for_one_that_is_cancelled_asks_itself() -> None:
    async def test() -> None:
        names = Names()
        resolver = CachedResolver(names)
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def ask_first() -> None:
                with first:
                    await resolver("a.example", 80)

            nursery.start_soon(ask_first)
            await trio.sleep(0.5)
            nursery.start_soon(resolver, "a.example", 80)
            await trio.sleep(0.1)
            first.cancel()
        assert names.asked == {"a.example": 2}
        assert await resolver("a.example", 80) == ["192.0.2.1"]

    run(test)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [(GONE, module.MISSING_SECONDS), (AGAIN, module.TROUBLE_SECONDS), ([], module.MISSING_SECONDS)],
)
def test_what_has_no_address_is_remembered_too(
    answer: list[str] | Exception, seconds: float
) -> None:
    async def test() -> None:
        names = Names(a=answer)
        resolver = CachedResolver(names)
        said = await fails(resolver, "a.example")
        await trio.sleep(seconds - 1)
        assert await fails(resolver, "a.example") == said
        assert names.asked == {"a.example": 1}
        await trio.sleep(2)
        await fails(resolver, "a.example")
        assert names.asked == {"a.example": 2}

    run(test)


def test_a_resolver_that_is_silent_is_not_waited_for() -> None:
    async def silent(host: str, port: int) -> list[str]:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def test() -> None:
        assert await fails(CachedResolver(silent), "a.example") == "no answer in 5 s"
        assert trio.current_time() < 6

    run(test)


def test_the_least_recently_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)

    async def test() -> None:
        names = Names()
        resolver = CachedResolver(names)
        for host in ("a", "b", "a", "c", "a", "b"):
            await resolver(host, 80)
        assert names.asked == {"a": 1, "b": 2, "c": 1}

    run(test)


def test_the_user_is_told_once_that_the_resolver_does_not_answer() -> None:
    async def test() -> None:
        told: list[str] = []
        trouble = {f"bad{n}": AGAIN for n in range(100)} | {f"gone{n}": GONE for n in range(400)}
        resolver = CachedResolver(Names(**trouble), warn=told.append)
        for n in range(400):  # names that do not exist are no trouble
            await fails(resolver, f"gone{n}")
        assert told == []
        for n in range(100):
            await fails(resolver, f"bad{n}")
        assert len(told) == 1
        assert told[0].startswith("45 of 445 name look-ups were not answered by ")

    run(test)


def test_what_can_be_no_name_is_said_every_time() -> None:
    async def test() -> None:
        resolver = CachedResolver()
        for _ in range(2):
            with pytest.raises(UnicodeError):
                await resolver("a" * 70 + ".example", 80)

    trio.run(test)


def test_the_systems_resolver_answers_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        assert await SystemResolver()("127.0.0.1", 80) == ["127.0.0.1"]
        resolver = SystemResolver(at_once=2)
        assert resolver._limiter.total_tokens == 2
        assert resolver._limiter is not trio.to_thread.current_default_thread_limiter()

    trio.run(test)


def test_the_resolvers_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver\n")
    assert system_resolvers(file) == ["192.0.2.1"]
    assert system_resolvers(tmp_path / "none") == []

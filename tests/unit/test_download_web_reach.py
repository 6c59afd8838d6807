"""A network that is down makes no dead links, and dead hosts make no network that is down."""

import itertools
import socket
from collections import Counter
from collections.abc import Callable

import pytest
import trio
import trio.testing

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download import web_reach
from pairmill.workers.download.budget import MemoryBudget, Room
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetcher import Answer, Fetched, FetchFailed
from pairmill.workers.download.hosts import Hosts, Pace
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.download.url import Target
from pairmill.workers.download.web_reach import NetworkDown, WebReach, asking, is_doubtful

FOREVER = float("inf")
INSTANT = 0.0, Outcome.DNS_FAILED  # the line is unplugged
SWALLOWS = 10.0, Outcome.CONNECT_TIMEOUT  # packets are lost


class Net:
    """A web behind a line that is down from one moment to another, by trio's clock. Hosts whose
    names begin with "dead" never answer."""

    def __init__(self, down: tuple[float, float] = (0, 0), how: tuple[float, Outcome] = INSTANT):
        self.down, self.how = down, how
        self.asked: Counter[str] = Counter()  # by URL
        self.checks: Counter[str] = Counter()  # by origin
        self.results: list[Result] = []

    @property
    def is_down(self) -> bool:
        return self.down[0] <= trio.current_time() < self.down[1]

    async def fetch(self, url: str, room: Room) -> Fetched:
        self.asked[url] += 1
        if self.is_down:
            await trio.sleep(self.how[0])
            return Fetched(self.how[1], source=url)
        await trio.sleep(0.2)
        if "//dead" in url:
            return Fetched(Outcome.CONNECT_FAILED, source=url)
        return Fetched(Outcome.HTTP_ERROR, 404, source=url)

    async def ask(self, origin: str) -> bool:
        self.checks[origin] += 1
        await trio.sleep(self.how[0] if self.is_down else 0.1)
        return not self.is_down and "//dead" not in origin

    async def run(self, urls: list[str], web: WebReach, alive: Callable[[], None]) -> None:
        async def take(result: Result) -> None:
            self.results.append(result)

        await fetch_all(
            list(enumerate(urls)), self, None,  # type: ignore[arg-type] - no image comes of these
            concurrency=16, pace=Pace(gap=0.0), hosts=Hosts(), budget=MemoryBudget(), on_result=take,
            web=web, alive=alive,
        )  # fmt: skip

    def crawl(self, urls: list[str], web: WebReach | None = None) -> float:
        """Fetch them all; returns the seconds that it took, of a clock that waits for nobody."""
        web = web or WebReach(self.ask)
        self.forgot = 0

        def forget() -> None:
            self.forgot += 1

        web._forget = forget

        async def main() -> float:
            begun = trio.current_time()
            await self.run(urls, web, lambda: None)
            return trio.current_time() - begun

        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    @property
    def failed(self) -> set[int]:
        return {r.n for r in self.results if r.http_status is None}


def urls_of(count: int, dead: int = 10) -> list[str]:
    """One in ``dead`` of a host that is dead, at random places that are always the same."""
    return [
        f"http://{'dead' if i * 7919 % dead == 0 else 'h'}{i * 7919 % 499}.example/{i}"
        for i in range(count)
    ]


def dead(urls: list[str]) -> set[int]:
    return {n for n, url in enumerate(urls) if "//dead" in url}


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        (INSTANT, 1.0), (INSTANT, 60.0), (INSTANT, 500.0),
        (SWALLOWS, 8.0), (SWALLOWS, 60.0), (SWALLOWS, 500.0),
    ],
)  # fmt: skip
def test_an_outage_makes_no_dead_links(how: tuple[float, Outcome], seconds: float) -> None:
    """Every URL has the one result that it has without the outage, whatever failed meanwhile, and
    what the failures taught is forgotten."""
    urls = urls_of(1_200)
    net = Net((3.0, 3.0 + seconds), how)
    took = net.crawl(urls)
    assert sorted(r.n for r in net.results) == list(range(len(urls)))
    assert net.failed == dead(urls)
    assert net.forgot == 1
    assert took < 3.0 + seconds + 60


def test_an_outage_is_known_within_ten_seconds_and_over_when_a_host_answers() -> None:
    """Also where nothing fails before a time-out."""
    for how in (INSTANT, SWALLOWS):
        net, seen = Net((3.0, 40.0), how), list[tuple[float, bool]]()
        web = WebReach(net.ask)

        async def look(web: WebReach = web, seen: list[tuple[float, bool]] = seen) -> None:
            while True:
                seen.append((trio.current_time(), web.outage() is not None))
                await trio.sleep(0.25)

        async def main(net: Net = net, web: WebReach = web) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await net.run(urls_of(1_200), web, lambda: None)
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        down = [when for when, is_down in seen if is_down]
        assert 3.0 <= down[0] <= 13.0
        assert 40.0 <= down[-1] <= 40.0 + web_reach.PAUSES[1] + web_reach.CHECK_SECONDS


def test_rows_of_dead_hosts_are_no_outage_and_cost_little() -> None:
    """A retry of links that were dead: a host that answered before is asked again a few times."""
    known = [f"http://h{i}.example/" for i in range(8)]
    urls = [*known, *(f"http://dead{i}.example/" for i in range(3_000))]
    net = Net()
    took = net.crawl(urls)
    assert net.failed == dead(urls)
    assert set(net.asked.values()) == {1}
    assert net.checks.total() <= 20
    assert took < 60


def test_a_few_dead_hosts_are_believed_at_once() -> None:
    net = Net()
    assert net.crawl([f"http://dead{i % 3}.example/{i}" for i in range(12)]) < 5
    assert len(net.failed) == 12
    assert not net.checks


def test_where_no_host_ever_answered_nothing_is_written_and_nothing_stalls() -> None:
    """A container without a name server: a batch is held a minute. A list without a queue is taken
    for one of dead hosts then."""
    urls = [f"http://dead{i}.example/" for i in range(100)]
    net = Net()
    with pytest.raises(NetworkDown) as raised:
        net.crawl(urls)
    assert not raised.value.known
    assert not net.results
    list_alone = Net()
    took = list_alone.crawl(urls, WebReach(list_alone.ask, believes=True))
    assert web_reach.STRANGE_SECONDS <= took < web_reach.STRANGE_SECONDS + 60
    assert list_alone.failed == set(range(100))


def test_a_long_outage_hands_the_batch_back_and_the_next_waits() -> None:
    """What was answered before is reported; a network that is thought down for ever is not."""
    urls = urls_of(1_200)

    async def main() -> tuple[float, float]:
        net = Net((3.0, 3_000.0))
        web, alive = WebReach(net.ask), list[float]()
        with pytest.raises(NetworkDown) as raised:
            await net.run(urls, web, lambda: alive.append(trio.current_time()))
        assert raised.value.known
        assert 0 < len(net.results) < len(urls)
        assert net.failed <= dead(urls)
        assert max(b - a for a, b in itertools.pairwise(alive)) <= 20  # heartbeats go on
        handed_back = trio.current_time()
        assert web.outage()
        await web.ready()
        return handed_back, trio.current_time()

    back, ready = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert back < 3.0 + 20 + web_reach.HOLD_SECONDS + 20
    assert 3_000 <= ready < 3_020


def test_hosts_that_died_for_good_do_not_stop_a_worker_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_reach, "FORGET_SECONDS", 0.0)

    async def main() -> None:
        net = Net((3.0, FOREVER))
        web = WebReach(net.ask)
        with pytest.raises(NetworkDown):
            await net.run(urls_of(1_200), web, lambda: None)
        await web.ready()
        assert web.outage() is None

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("outcome", "status", "doubtful"),
    [
        (Outcome.DNS_FAILED, None, True), (Outcome.CONNECT_FAILED, None, True),
        (Outcome.TIMEOUT, 200, True), (Outcome.CONNECTION_LOST, 200, True),
        (Outcome.OPT_OUT_UNKNOWN, None, True), (Outcome.OPT_OUT_UNKNOWN, 503, False),
        (Outcome.HOST_GIVEN_UP, None, True), (Outcome.HTTP_ERROR, 404, False),
        (Outcome.SUCCESS, 200, False), (Outcome.INVALID_URL, None, False),
        (Outcome.ADDRESS_REFUSED, None, False), (Outcome.CERTIFICATE_REFUSED, None, False),
    ],
)  # fmt: skip
def test_what_may_be_the_networks_is_doubtful(
    outcome: Outcome, status: int | None, doubtful: bool
) -> None:
    assert is_doubtful(outcome, status) is doubtful


@pytest.mark.parametrize(
    ("name_servers", "fails", "answers"),
    [
        (socket.EAI_NONAME, None, True),
        (socket.EAI_NONAME, FetchFailed(Outcome.TOO_LARGE, 200), True),
        (socket.EAI_NONAME, FetchFailed(Outcome.BAD_RESPONSE), True),
        (socket.EAI_NONAME, FetchFailed(Outcome.CONNECT_TIMEOUT), False),
        (socket.EAI_AGAIN, None, False),
    ],
)
def test_a_known_host_is_asked_past_all_that_is_remembered(
    name_servers: int, fails: FetchFailed | None, answers: bool
) -> None:
    """A name that the machine remembers says nothing of a name server that is away."""

    class Backend:
        async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
            assert (target.host, target.path, at_most) == ("a.example", "/robots.txt", 1)
            await resolver(target.host, target.port)
            if fails:
                raise fails
            return Answer(404, ())

        async def close(self) -> None: ...

    looked_up: list[str] = []

    async def system(name: str, port: int) -> list[str]:
        looked_up.append(name)
        if name == "a.example":
            return ["192.0.2.1"]
        raise socket.gaierror(name_servers, "?")

    resolver = CachedResolver(system)

    async def main() -> bool:
        await resolver("a.example", 80)
        return await asking(Backend(), resolver)("http://a.example")

    assert trio.run(main) is answers
    strange = [name for name in looked_up if name.endswith(".a.example")]
    assert len(strange) == 1
    assert looked_up.count("a.example") == (1 if name_servers == socket.EAI_AGAIN else 2)

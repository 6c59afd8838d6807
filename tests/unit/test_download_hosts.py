"""Which URL is next, and which host is left alone; on trio's mock clock."""

import itertools
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetcher import Fetched
from pairmill.workers.download.hosts import (
    FAILURES,
    GIVEN_UP_SECONDS,
    Hosts,
    Pace,
    Schedule,
    host_of,
)

Answer = Callable[[str], Fetched]
GOOD = Fetched(Outcome.SUCCESS, 200, b"x")


def crawl(
    urls: list[str],
    answer: Answer,
    *,
    hosts: Hosts | None = None,
    pace: Pace = Pace(),
    workers: int = 4,
) -> list[tuple[float, str, Outcome]]:
    """(when, URL, outcome) of each, by the mock clock; a fetch takes a second."""
    seen: list[tuple[float, str, Outcome]] = []

    async def main() -> None:
        schedule = Schedule(list(enumerate(urls)), hosts or Hosts(), pace)

        async def work() -> None:
            while (found := await schedule.next()) is not None:
                _, url, refused = found
                begun = trio.current_time()
                if refused:
                    fetched = None
                    seen.append((begun, url, refused))
                else:
                    await trio.sleep(1.0)
                    fetched = answer(url)
                    seen.append((begun, url, fetched.outcome))
                schedule.done(url, fetched)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(work)
        seen[:] = [(when - start, url, outcome) for when, url, outcome in seen]

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return seen


def test_every_url_comes_out_once_and_one_host_is_paced() -> None:
    urls = [f"http://a.example/{i}" for i in range(10)]
    seen = crawl(urls, lambda url: GOOD, pace=Pace(per_host=2, gap=0.3), workers=8)
    assert sorted(url for _, url, _ in seen) == urls
    starts = sorted(when for when, _, _ in seen)
    assert all(later - earlier >= 0.3 - 1e-9 for earlier, later in itertools.pairwise(starts))
    for when in starts:  # of a second's fetches no more than two overlap
        assert sum(when <= other < when + 1.0 for other in starts) <= 2


def test_hosts_take_turns() -> None:
    urls = [f"http://a.example/{i}" for i in range(5)] + [f"http://b.example/{i}" for i in range(5)]
    seen = crawl(urls, lambda url: GOOD, pace=Pace(per_host=9, gap=0.0), workers=2)
    first_four = {host_of(url) for _, url, _ in sorted(seen)[:2]}
    assert first_four == {"a.example", "b.example"}


def test_host_that_fails_is_given_up_and_asked_again_after_a_while() -> None:
    hosts = Hosts()
    dead = Fetched(Outcome.CONNECT_TIMEOUT)
    urls = [f"http://dead.example/{i}" for i in range(20)] + ["http://good.example/1"]
    seen = crawl(urls, lambda url: dead if "dead" in url else GOOD, hosts=hosts, workers=1)
    outcomes = [outcome for _, url, outcome in seen if "dead" in url]
    assert outcomes == [Outcome.CONNECT_TIMEOUT] * FAILURES + [Outcome.HOST_GIVEN_UP] * (
        20 - FAILURES
    )
    assert (Outcome.SUCCESS) in [outcome for _, _, outcome in seen]

    async def later() -> None:
        assert hosts.refused("dead.example") is Outcome.HOST_GIVEN_UP
        await trio.sleep(GIVEN_UP_SECONDS)
        assert hosts.refused("dead.example") is None
        hosts.note("dead.example", dead)  # half open: one more failure closes it again
        assert hosts.refused("dead.example") is Outcome.HOST_GIVEN_UP
        hosts.note("dead.example", GOOD)
        assert hosts.refused("dead.example") is None
        hosts.note("dead.example", dead)
        await trio.sleep(2 * GIVEN_UP_SECONDS)
        hosts.forget_old()
        assert hosts._standing == {}

    async def main() -> None:
        for standing in hosts._standing.values():  # of another run's clock
            standing.until = trio.current_time() + GIVEN_UP_SECONDS
        await later()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_answers_between_failures_keep_a_host() -> None:
    count = iter(range(100))
    bad = Fetched(Outcome.SERVER_ERROR, 500)
    seen = crawl(
        [f"http://a.example/{i}" for i in range(30)],
        lambda url: bad if next(count) % 3 else Fetched(Outcome.HTTP_ERROR, 404),
        workers=1,
    )
    assert Outcome.HOST_GIVEN_UP not in [outcome for _, _, outcome in seen]


@pytest.mark.parametrize(("after", "wait"), [(7.0, 7.0), (None, 10.0)])
def test_short_retry_after_is_waited_for(after: float | None, wait: float) -> None:
    answers = iter([Fetched(Outcome.RETRY_LATER, 429, retry_after=after), GOOD, GOOD])
    urls = [f"http://a.example/{i}" for i in range(3)]
    seen = crawl(urls, lambda url: next(answers), workers=1)
    assert [outcome for _, _, outcome in seen] == [
        Outcome.RETRY_LATER,
        Outcome.SUCCESS,
        Outcome.SUCCESS,
    ]
    assert seen[1][0] >= 1.0 + wait - 1e-9


def test_answers_that_were_on_their_way_end_no_wait() -> None:
    """Of four at once the first was told to wait; the other three ended the wait at once."""
    answers = iter([Fetched(Outcome.RETRY_LATER, 429, retry_after=7.0), *[GOOD] * 9])
    urls = [f"http://a.example/{i}" for i in range(10)]
    seen = crawl(urls, lambda url: next(answers), pace=Pace(per_host=4, gap=0.0), workers=4)
    assert sorted(when for when, _, _ in seen)[4] >= 8.0 - 1e-9
    assert [outcome for _, _, outcome in seen].count(Outcome.SUCCESS) == 9


def test_long_retry_after_ends_the_host_for_this_batch() -> None:
    urls = [f"http://a.example/{i}" for i in range(10)]
    later = Fetched(Outcome.RETRY_LATER, 503, retry_after=3600.0)
    seen = crawl(urls, lambda url: later, workers=1)
    assert [outcome for _, _, outcome in seen] == [Outcome.RETRY_LATER] * 10
    assert max(when for when, _, _ in seen) <= 1.5  # one was asked for


def test_host_that_asks_to_wait_for_ever_cannot_keep_a_batch() -> None:
    urls = [f"http://a.example/{i}" for i in range(100)]
    seen = crawl(urls, lambda url: Fetched(Outcome.RETRY_LATER, 429, retry_after=30.0), workers=4)
    assert len(seen) == 100
    assert max(when for when, _, _ in seen) < FAILURES * 40


def test_what_our_reader_refuses_is_no_failure_of_the_host() -> None:
    """Five odd headers closed a host for ten minutes, with all its images."""
    bad = Fetched(Outcome.BAD_RESPONSE, 200)
    urls = [f"http://a.example/{i}" for i in range(3 * FAILURES)]
    seen = crawl(urls, lambda url: bad, workers=1)
    assert [outcome for _, _, outcome in seen] == [Outcome.BAD_RESPONSE] * len(urls)


@pytest.mark.parametrize(
    ("source", "own"),
    [
        ("https://a.example/moved", True),
        ("http://A.example:80/", True),
        ("http://dead.example/", False),
        ("http://a.example:81/", False),
    ],
)
def test_where_redirects_lead_is_no_failure_of_the_host(source: str, own: bool) -> None:
    """Five short URLs of dead sites closed the shortener."""
    urls = [f"http://a.example/{i}" for i in range(2 * FAILURES)]
    bad = Fetched(Outcome.CONNECT_FAILED, source=source)
    outcomes = [outcome for _, _, outcome in crawl(urls, lambda url: bad, workers=1)]
    assert (Outcome.HOST_GIVEN_UP in outcomes) == own
    # but a host that asks to wait is left alone, whatever led to it
    later = Fetched(Outcome.RETRY_LATER, 429, retry_after=3600.0, source=source)
    assert max(when for when, _, _ in crawl(urls, lambda url: later, workers=1)) <= 1.5


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://A.example:80/x", "a.example"),
        ("https://A.example:80/x", "a.example:80"),
        ("http://u:p@b.example/", "b.example"),
        ("http:\\\\b.example:081\\x", "b.example:81"),
        ("http://straße.example/", "xn--strae-oqa.example"),
        ("http://[", ""),
        ("http://a b/", ""),
    ],
)
def test_host_of(url: str, host: str) -> None:
    """The host that is asked; else two spellings of a host have twice its share."""
    assert host_of(url) == host

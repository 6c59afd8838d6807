"""Fetching and decoding many: bounded, spread over hosts, one result for each URL."""

import os
import signal
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.demo.site import jpeg
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download import pool as pool_module
from pairmill.workers.download.budget import MemoryBudget, Room
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetcher import Fetched
from pairmill.workers.download.hosts import Hosts, Pace
from pairmill.workers.download.pool import DecoderPool, decoder_pool

BODY = jpeg(photo_like(1, (320, 240)))


@dataclass
class Counting:
    """A backend that notes how many it serves at once, in all and of one host."""

    now: Counter[str] = field(default_factory=Counter)
    most: int = 0
    most_of_a_host: int = 0

    async def fetch(self, url: str, room: Room) -> Fetched:
        host = url.split("/")[2]
        self.now[host] += 1
        self.most = max(self.most, self.now.total())
        self.most_of_a_host = max(self.most_of_a_host, *self.now.values())
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.now[host] -= 1
        if "bug" in url:
            raise RuntimeError("a fault of ours")
        return (
            Fetched(Outcome.HTTP_ERROR, 404)
            if "dead" in url
            else Fetched(Outcome.SUCCESS, 200, BODY)
        )


def crawl(urls: list[tuple[int, str]], fetcher: Counting, **limits: int) -> list[Result]:
    results: list[Result] = []

    async def take(result: Result) -> None:
        results.append(result)

    async def main() -> None:
        async with decoder_pool(1) as pool:
            await fetch_all(
                urls,
                fetcher,  # type: ignore[arg-type] - it fetches as one
                pool,
                concurrency=limits.get("concurrency", 10),
                pace=Pace(limits.get("per_host", 3), gap=0.0),
                hosts=Hosts(),
                budget=MemoryBudget(),
                on_result=take,
            )

    trio.run(main)
    return results


def test_every_url_has_one_result_and_limits_hold() -> None:
    urls = [(n, f"http://h{n % 5}.example/dead/{n}") for n in range(300)]
    urls += [(n, f"http://big.example/dead/{n}") for n in range(300, 600)]
    fetcher = Counting()
    results = crawl(urls, fetcher)
    assert sorted(r.n for r in results) == list(range(600))
    assert fetcher.most == 10
    assert fetcher.most_of_a_host == 3


def test_slow_host_does_not_hold_the_others_up() -> None:
    done: list[str] = []
    never = trio.Event()

    class Stuck(Counting):
        async def fetch(self, url: str, room: Room) -> Fetched:
            if "stuck" in url and len(done) < 100:
                await never.wait()
            done.append(url)
            if len(done) == 100:
                never.set()
            return Fetched(Outcome.HTTP_ERROR, 404)

    urls = [(n, f"http://stuck.example/{n}") for n in range(50)]
    urls += [(n, f"http://h{n % 20}.example/{n}") for n in range(50, 150)]
    assert len(crawl(urls, Stuck(), concurrency=8, per_host=2)) == 150
    assert not any("stuck" in url for url in done[:99])


def test_results_hold_what_the_body_is() -> None:
    (good,) = crawl([(7, "http://a.example/1.jpg")], Counting())
    assert (good.outcome, good.http_status, good.size) == (Outcome.SUCCESS, 200, len(BODY))
    assert (good.width, good.height) == (320, 240)
    assert (len(good.md5 or b""), len(good.sha256 or b"")) == (16, 32)
    assert (good.thumbnail or b"")[:3] == b"\xff\xd8\xff"
    (dead,) = crawl([(8, "http://a.example/dead")], Counting())
    assert dead == Result(8, Outcome.HTTP_ERROR, 404)


def test_fault_of_ours_costs_one_url() -> None:
    results = crawl([(1, "http://a/bug"), (2, "http://a/x.jpg"), (3, "http://[/")], Counting())
    found = {r.n: r.outcome for r in results}
    assert found[1] is Outcome.INTERNAL_ERROR
    assert found[2] is Outcome.SUCCESS
    assert 3 in found


def test_decoder_that_is_killed_costs_one_image_and_is_replaced() -> None:
    async def main() -> None:
        async with decoder_pool(1) as pool:
            assert (await pool.decode(BODY)).outcome is Outcome.SUCCESS
            kill_decoder(pool)
            assert (await pool.decode(BODY)).outcome is Outcome.INTERNAL_ERROR
            assert (await pool.decode(BODY)).outcome is Outcome.SUCCESS

    trio.run(main)


def test_decoder_that_cannot_be_started_costs_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    start = pool_module._Decoder.start

    async def main() -> None:
        async with decoder_pool(1) as pool:
            kill_decoder(pool)
            assert (await pool.decode(BODY)).outcome is Outcome.INTERNAL_ERROR
            monkeypatch.setattr(pool_module._Decoder, "start", failing)
            assert (await pool.decode(BODY)).outcome is Outcome.INTERNAL_ERROR
            monkeypatch.setattr(pool_module._Decoder, "start", start)
            assert (await pool.decode(BODY)).outcome is Outcome.SUCCESS

    async def failing(wanted: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    trio.run(main)


def test_bodies_are_let_go_of_with_their_room() -> None:
    """While its result waits to be taken, nobody holds a body any more."""

    class Body(bytearray):
        """One that may be watched."""

    bodies: list[weakref.ref[Body]] = []

    class Large(Counting):
        async def fetch(self, url: str, room: Room) -> Fetched:
            body = Body(b"no image")
            bodies.append(weakref.ref(body))
            return Fetched(Outcome.SUCCESS, 200, body)  # type: ignore[arg-type]

    async def take(result: Result) -> None:
        assert result.outcome is Outcome.NOT_AN_IMAGE
        await trio.testing.wait_all_tasks_blocked()
        assert [body() for body in bodies] == [None]

    async def main() -> None:
        async with decoder_pool(1) as pool:
            await fetch_all(
                [(1, "http://a/")], Large(), pool, concurrency=1, pace=Pace(), hosts=Hosts(),  # type: ignore[arg-type]
                budget=MemoryBudget(), on_result=take,
            )  # fmt: skip

    trio.run(main)


def kill_decoder(pool: DecoderPool) -> None:
    decoder = pool._free.receive_nowait()
    os.kill(decoder._process.pid, signal.SIGKILL)
    pool._put.send_nowait(decoder)


def test_cancelled_decoding_leaves_the_pool_whole() -> None:
    async def main() -> None:
        async with decoder_pool(1) as pool:
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.decode(BODY)
            with trio.move_on_after(0.001):
                await pool.decode(BODY)
            small = jpeg(photo_like(2, (64, 48)))
            decoded = await pool.decode(small)
            # the answer is this image's, not the cancelled one's
            assert (decoded.width, decoded.height) == (64, 48)

    trio.run(main)


def test_decoders_end_with_the_block() -> None:
    pids: list[int] = []

    async def main() -> None:
        async with decoder_pool(2) as pool:
            for _ in range(2):
                decoder = pool._free.receive_nowait()
                pids.append(decoder._process.pid)
                pool._put.send_nowait(decoder)

    trio.run(main)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

"""Permission, asked of real servers: what is fetched, what is refused, and at which cost."""

import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network

import pytest
import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget, Room
from pairmill.workers.download.client import Client
from pairmill.workers.download.fetcher import Answer, Fetched, Fetcher, FetchFailed, Limits
from pairmill.workers.download.network import Network
from pairmill.workers.download.permission import HostFile, Permission
from pairmill.workers.download.url import Target
from support.misbehaving import misbehaving, request_of, saying

LOOPBACK = (ip_network("127.0.0.0/8"),)
QUICK = Limits(connect=1.0, read=0.5, total=5.0)
Answers = Callable[[str, str], bytes]  # (host, path) -> a response


def ok(body: bytes, *headers: bytes) -> bytes:
    head = b"".join(h + b"\r\n" for h in headers)
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


def status(code: int, *headers: bytes) -> bytes:
    head = b"".join(h + b"\r\n" for h in headers)
    return b"HTTP/1.1 %d X\r\n%sContent-Length: 0\r\n\r\n" % (code, head)


class Site:
    """A server that keeps connections, counts what it is asked for, and answers by host and
    path; an empty answer closes the connection."""

    def __init__(self, answers: Answers) -> None:
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self._answers = answers

    def script(self, connection) -> None:  # type: ignore[no-untyped-def]
        self.connections += 1
        while request := request_of(connection).decode("latin-1"):
            path = request.split(" ")[1]
            host = request.partition("Host: ")[2].split("\r\n")[0]
            self.asked[path] += 1
            if not (answer := self._answers(host, path)):
                return
            connection.sendall(answer)
            if "Connection: close" in request:
                return


def fetch(
    site: Site, *urls: str, at_once: bool = False, known: tuple[HostFile, ...] = ()
) -> tuple[list[Fetched], Permission]:
    """Fetch URLs one after another, or all at once, with one permission."""
    found: dict[str, Fetched] = {}
    permissions: list[Permission] = []

    async def main(port: int) -> None:
        async with Client(Network(LOOPBACK, ("127.0.0.1", port)), limits=QUICK) as client:
            permission = Permission(client)
            permissions.append(permission)
            permission.learn(known)
            fetcher = Fetcher(client, QUICK, permission)

            async def one(url: str) -> None:
                with MemoryBudget().room() as room:
                    found[url] = await fetcher.fetch(url, room)

            async with trio.open_nursery() as nursery:
                for url in urls:
                    if at_once:
                        nursery.start_soon(one, url)
                    else:
                        await one(url)

    with misbehaving(site.script) as port:
        trio.run(main, port)
    return [found[url] for url in urls], permissions[0]


def one_file(path: str, answer: bytes) -> Site:
    """A site on which every image is there, one file says something, and the rest is 404."""

    def answers(_: str, asked: str) -> bytes:
        if asked == path:
            return answer
        return ok(b"image") if asked.startswith("/img") else status(404)

    return Site(answers)


A = "http://a.example"
IMAGES = [f"{A}/img/{i}" for i in range(5)]


def test_one_request_before_the_first_image_and_the_others_lazily() -> None:
    site = one_file("/robots.txt", ok(b"User-agent: *\nDisallow: /private"))
    found, permission = fetch(site, *IMAGES)
    assert [f.outcome for f in found] == [Outcome.SUCCESS] * 5
    assert [n for p, n in sorted(site.asked.items()) if "img" not in p] == [1, 1, 1]
    assert permission.requests == 3
    assert site.connections == 4  # each for two of the eight requests
    lonely = one_file("/robots.txt", status(404))
    _, permission = fetch(lonely, IMAGES[0])
    assert set(lonely.asked) == {"/robots.txt", "/img/0"}
    assert {(n.file, n.status, n.rules) for n in permission.news()} == {("robots.txt", 404, "")}
    assert permission.news() == []


def test_refusals_have_their_evidence_and_the_image_is_not_asked_for() -> None:
    site = one_file("/robots.txt", ok(b"User-agent: pairmill\nDisallow: /img"))
    (found,), _ = fetch(site, IMAGES[0])
    assert found.outcome is Outcome.OPTED_OUT
    assert found.evidence is not None
    assert (found.evidence.signal, found.evidence.value) == ("robots.txt", "disallow: /img")
    assert found.evidence.source == f"{A}/robots.txt"
    assert "/img/0" not in site.asked
    reserved = one_file("/.well-known/tdmrep.json", ok(b'[{"location":"/","tdm-reservation":1}]'))
    found, _ = fetch(reserved, *IMAGES)
    assert [f.outcome for f in found] == [Outcome.SUCCESS] + [Outcome.OPTED_OUT] * 4
    stated = one_file("/ai.txt", ok(b"User-agent: *\nDisallow: /"))
    found, _ = fetch(stated, *IMAGES)
    assert [f.outcome for f in found] == [Outcome.SUCCESS] * 2 + [Outcome.OPTED_OUT] * 3
    assert found[4].evidence is not None
    assert found[4].evidence.signal == "ai.txt"


def test_headers_of_the_image_refuse_it() -> None:
    site = Site(
        lambda _, p: status(404) if p == "/robots.txt" else ok(b"image", b"X-Robots-Tag: noai")
    )
    (found,), _ = fetch(site, IMAGES[0])
    assert (found.outcome, found.body) == (Outcome.OPTED_OUT, None)
    assert found.evidence is not None
    assert (found.evidence.signal, found.evidence.source) == ("X-Robots-Tag", IMAGES[0])


def outcome_of_robots(answer: bytes) -> Outcome:
    (found,), _ = fetch(one_file("/robots.txt", answer), IMAGES[0])
    return found.outcome


def test_headers_of_a_redirect_refuse_the_image_and_those_of_robots_txt_nothing() -> None:
    """A site that reserves its rights, and has its images on another host, was not heard."""
    reserved = b"tdm-reservation: 1"

    def answers(host: str, path: str) -> bytes:
        if path == "/img/0":
            return status(302, b"Location: http://b.example/img", reserved)
        if path == "/robots.txt":
            return status(302, b"Location: /rules", reserved)
        return ok(b"image") if path.startswith("/img") else ok(b"", reserved)

    site = Site(answers)
    (refused, taken), _ = fetch(site, *IMAGES[:2])
    assert (refused.outcome, refused.http_status) == (Outcome.OPTED_OUT, 302)
    assert refused.evidence is not None
    assert refused.evidence.source == IMAGES[0]
    assert "/img" not in site.asked
    assert taken.outcome is Outcome.SUCCESS


def test_what_robots_txt_cannot_be_had_means() -> None:
    """RFC 9309, 2.3.1."""
    assert outcome_of_robots(status(404)) is Outcome.SUCCESS
    assert outcome_of_robots(status(403)) is Outcome.SUCCESS
    assert outcome_of_robots(status(500)) is Outcome.OPT_OUT_UNKNOWN
    assert outcome_of_robots(status(503)) is Outcome.OPT_OUT_UNKNOWN
    assert outcome_of_robots(b"") is Outcome.OPT_OUT_UNKNOWN
    assert outcome_of_robots(b"nonsense\r\n\r\n") is Outcome.OPT_OUT_UNKNOWN
    assert outcome_of_robots(b"HTTP/1.1 200 OK\r\nContent-Le") is Outcome.OPT_OUT_UNKNOWN  # slow
    assert outcome_of_robots(status(429, b"Retry-After: 9")) is Outcome.RETRY_LATER
    assert outcome_of_robots(ok(b"<html>no such page</html>")) is Outcome.SUCCESS
    assert outcome_of_robots(status(302, b"Location: /robots.txt")) is Outcome.SUCCESS
    elsewhere = status(302, b"Location: https://b.example/")  # where nobody speaks TLS
    assert outcome_of_robots(elsewhere) is Outcome.OPT_OUT_UNKNOWN


def test_robots_txt_that_redirects_or_is_huge_is_read() -> None:
    def answers(host: str, path: str) -> bytes:
        if host == "a.example" and path == "/robots.txt":
            return status(301, b"Location: http://b.example/there")
        if path == "/there":
            return ok(b"User-agent: *\nDisallow: /img\n" + b"# and much more\n" * 100_000)
        return ok(b"image")

    (found,), _ = fetch(Site(answers), IMAGES[0])
    assert found.outcome is Outcome.OPTED_OUT
    # a rule that the limit cuts is another rule: ``Disallow: /`` for ``Disallow: /private``
    head = b"User-agent: *\n#%s\n" % (b"x" * (500 * 1024 - 27))
    assert len(head + b"Disallow: /") == 500 * 1024
    assert outcome_of_robots(ok(head + b"Disallow: /private")) is Outcome.SUCCESS
    assert outcome_of_robots(ok(head + b"Disallow: /")) is Outcome.OPTED_OUT
    late = b"# much\n" * 100_000 + b"User-agent: *\nDisallow: /"  # beyond the first 500 KiB
    assert outcome_of_robots(ok(late)) is Outcome.SUCCESS
    assert outcome_of_robots(b"HTTP/1.1 200 OK\r\n\r\nUser-agent: *\nDisallow: /") is (
        Outcome.OPT_OUT_UNKNOWN  # it never ends: the read deadline
    )


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (CHUNKED + b"not a size\r\n", Outcome.SUCCESS),
        (
            ok(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff", b"Content-Encoding: gzip"),
            Outcome.SUCCESS,
        ),
        (ok(b"", b"Content-Length: 7"), Outcome.SUCCESS),
        (ok(b"", b"X: a\0b"), Outcome.SUCCESS),
        (ok(b"", b"X: " + b"y" * 300_000), Outcome.SUCCESS),
        (ok(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100), Outcome.SUCCESS),
        (ok(b"<!doctype html>\n<p>Disallow: /\n"), Outcome.SUCCESS),
        (ok(b"User-agent: *\nDisallow: /caf\xe9/\n"), Outcome.SUCCESS),
        (ok(b""), Outcome.SUCCESS),
        (ok("User-agent: *\nDisallow: /".encode("utf-16")), Outcome.OPTED_OUT),
        (ok(b"User-agent: *\nDisallow: /", b"Content-Encoding: gzip"), Outcome.OPTED_OUT),
        (ok(b"\xff\xff\nUseragent: *\nDisalow: /"), Outcome.OPTED_OUT),
    ],
)
def test_odd_robots_txt_closes_no_host(answer: bytes, outcome: Outcome) -> None:
    """What our parser cannot read is no refusal of the site, and no failure of the host; what can
    be read of it counts (RFC 9309, 2.3.1.1)."""
    site = one_file("/robots.txt", answer)
    found, permission = fetch(site, *IMAGES[:2])
    assert [f.outcome for f in found] == [outcome] * 2
    assert site.asked["/robots.txt"] == 1  # and is not asked for at each image
    # what could not be read is no news for others
    unread = (
        answer.startswith(CHUNKED)
        or b"\x1f\x8b" in answer
        or any(odd in answer for odd in (b"Length: 7", b"a\0b", b"yyy"))
    )
    assert ("robots.txt" not in {n.file for n in permission.news()}) == unread


def test_fault_of_ours_is_not_the_hosts() -> None:
    """No socket to be had (EMFILE) while robots.txt is asked for leaves the host as it was."""

    class Ours:
        def __init__(self) -> None:
            self.fails = True

        async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
            if self.fails:
                raise FetchFailed(Outcome.INTERNAL_ERROR)
            return Answer(404, ()) if at_most else Answer(200, (), b"image")

        async def close(self) -> None:
            pass

    async def main() -> list[Outcome]:
        backend = Ours()
        fetcher = Fetcher(backend, QUICK, Permission(backend))
        found = []
        for backend.fails in (True, False):
            with MemoryBudget().room() as room:
                found.append((await fetcher.fetch(IMAGES[0], room)).outcome)
        return found

    assert trio.run(main) == [Outcome.INTERNAL_ERROR, Outcome.SUCCESS]


def test_host_that_cannot_be_reached_keeps_that_name() -> None:
    async def main() -> Fetched:
        async with Client(Network(LOOPBACK, ("127.0.0.1", 1)), limits=QUICK) as client:
            with MemoryBudget().room() as room:
                return await Fetcher(client, QUICK, Permission(client)).fetch(IMAGES[0], room)

    assert trio.run(main).outcome is Outcome.CONNECT_FAILED


def test_many_at_once_ask_once() -> None:
    site = one_file("/robots.txt", ok(b"User-agent: *\nDisallow: /img/3"))
    found, _ = fetch(site, *IMAGES, at_once=True)
    assert [f.outcome for f in found].count(Outcome.OPTED_OUT) == 1
    assert all(n == 1 for path, n in site.asked.items() if "img" not in path)


def test_each_hop_of_a_redirect_needs_a_permit() -> None:
    def answers(host: str, path: str) -> bytes:
        if path == "/robots.txt":
            return ok(b"User-agent: *\nDisallow: /") if host == "b.example" else status(404)
        return status(302, b"Location: http://b.example/img")

    site = Site(answers)
    (found,), _ = fetch(site, IMAGES[0])
    assert found.outcome is Outcome.OPTED_OUT
    assert found.evidence is not None
    assert found.evidence.source == "http://b.example/robots.txt"
    assert found.source == "http://b.example/img"  # so it is no failure of a.example
    assert "/img" not in site.asked


def test_what_others_read_is_used_until_it_is_a_day_old() -> None:
    site = one_file("/robots.txt", status(404))
    forbidden = HostFile(A, "robots.txt", 200, "disallow: /", time.time() - 3600)
    (found,), permission = fetch(site, IMAGES[0], known=(forbidden,))
    assert found.outcome is Outcome.OPTED_OUT
    assert permission.news()[0].file == "tdmrep.json"  # the next that was not known
    old = HostFile(A, "robots.txt", 200, "disallow: /", time.time() - 90_000)
    (found,), _ = fetch(site, IMAGES[0], known=(old,))
    assert found.outcome is Outcome.SUCCESS


def test_memory_for_rules_is_bounded() -> None:
    async def main() -> None:
        async with Client(Network(LOOPBACK)) as client:
            permission = Permission(client)
            for i in range(1000):
                rules = "disallow: /\n" * 20_000
                permission.learn([HostFile(f"http://h{i}", "robots.txt", 200, rules, 2e9)])
            assert len(permission._known) < 50

    trio.run(main)


def test_kept_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    """The server answers once on each connection and closes it, as if it were kept."""

    async def main(port: int) -> list[Outcome]:
        async with Client(Network(LOOPBACK, ("127.0.0.1", port)), limits=QUICK) as client:
            fetcher = Fetcher(client, QUICK)
            found = []
            for url in IMAGES[:2]:
                with MemoryBudget().room() as room:
                    found.append((await fetcher.fetch(url, room)).outcome)
            return found

    with misbehaving(saying(ok(b"image"))) as port:
        assert trio.run(main, port) == [Outcome.SUCCESS, Outcome.SUCCESS]

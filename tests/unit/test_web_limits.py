"""The bounds on clients: networks, rates and the gate."""

import asyncio

import pytest
from starlette.exceptions import HTTPException

from pairmill.ops.web.limits import Gate, Rate, behind_proxy, network


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("<script>", "unknown"),
        ("203.0.113.77:80", "unknown"),
    ],
)
def test_a_network_is_what_one_person_has(address: str, name: str) -> None:
    """Would catch: a client that escapes by one of its 2^64 addresses, or by writing one
    differently."""
    assert network(address) == name


def test_the_last_forwarded_address_counts() -> None:
    """Would catch: the first one, which the client writes itself."""
    headers = [
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3"),
        (b"x-forwarded-proto", b"HTTPS"),
    ]
    assert behind_proxy({"headers": headers}) == (("3.3.3.3", 0), "https")
    assert behind_proxy({"headers": []}) == (None, "http")


def test_a_crowd_of_networks_is_counted_together() -> None:
    """Would catch: counters without end, one for each network that an attacker comes from."""
    rate = Rate("1000/hour", crowd=10)
    for n in range(900):
        rate.count(f"2001:db8:{n:x}::1")
    assert len(rate.storage.storage) <= 25
    with pytest.raises(HTTPException):
        for _ in range(1_001):
            rate.count("2001:db8:ffff::1")
    rate.count("203.0.113.1")


def test_each_rule_counts() -> None:
    rate = Rate("2/hour;3/day")
    rate.count("203.0.113.1")
    rate.count("203.0.113.2")
    with pytest.raises(HTTPException) as refused:
        rate.count("203.0.113.3")
    assert refused.value.status_code == 429
    assert 0 < int((refused.value.headers or {})["Retry-After"]) <= 3600
    rate.count("203.0.114.1")


async def outcome(gate: Gate, go: asyncio.Event) -> str:
    try:
        async with gate:
            await go.wait()
            return "done"
    except HTTPException as error:
        return f"{error.status_code} {(error.headers or {})['Retry-After']}"


def test_the_gate_lets_so_many_in() -> None:
    """Would catch: a place that is lost, or given twice, when one who waits is cancelled."""

    async def scene() -> None:
        gate, go = Gate(2, 2, retry_after=7, patience=60), asyncio.Event()
        tasks = [asyncio.create_task(outcome(gate, go)) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [False] * 4 + [True] * 2
        assert {task.result() for task in tasks[4:]} == {"503 7"}
        tasks[2].cancel()
        go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in found if each == "done"] == ["done"] * 3
        assert gate.free == 2
        assert await outcome(gate, go) == "done"

    asyncio.run(scene())


def test_a_turn_that_comes_to_one_who_goes_is_passed_on() -> None:
    """Would catch: a gate that closes by one with each client that leaves at the wrong moment."""

    async def scene() -> None:
        gate, go = Gate(1, 2, patience=60), asyncio.Event()
        go.set()
        await gate.__aenter__()
        leaver = asyncio.create_task(outcome(gate, go))
        waiter = asyncio.create_task(outcome(gate, go))
        await asyncio.sleep(0)
        await gate.__aexit__()  # the turn is the leaver's now, who does not know it yet
        leaver.cancel()
        assert await waiter == "done"
        assert gate.free == 1

    asyncio.run(scene())


def test_patience_ends() -> None:
    async def scene() -> None:
        gate, go = Gate(1, 5, retry_after=3, patience=0.01), asyncio.Event()
        holder = asyncio.create_task(outcome(gate, go))
        await asyncio.sleep(0)
        assert await outcome(gate, go) == "503 3"
        go.set()
        assert await holder == "done"
        assert gate.free == 1

    asyncio.run(scene())

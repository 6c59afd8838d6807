import gzip
import io
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.workers.extract.records import MAX_BODY, MAX_HEADER, Record, WarcRecords
from support.wats import packed, record, warcinfo

ONE, TWO, THREE = (record(f'{{"n": "{word}"}}') for word in ("one", "two", "three"))


class Dribble:
    """A stream that gives one byte at a time, as a slow connection may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, 1))


def read(data: bytes) -> tuple[list[bytes | str], str | None]:
    """Body, or what is bad, of each record; and why reading ended early."""
    records = WarcRecords(io.BytesIO(data))
    found = [one.bad or bytes(one.body) for one in records]
    return found, records.ended_early


def with_length(one: bytes, length: str) -> bytes:
    (size,) = bodies(one)
    header = f"Content-Length: {len(size)}\r\n".encode()
    assert one.count(header) == 1
    return one.replace(header, f"Content-Length: {length}\r\n".encode() if length else b"")


def bodies(*records: bytes) -> list[bytes]:
    return [one.partition(b"\r\n\r\n")[2][:-4] for one in records]


@pytest.mark.parametrize(
    "data",
    [
        packed([ONE, TWO, THREE]),
        ONE + TWO + THREE,
        gzip.compress(ONE + TWO + THREE),
        packed([ONE, TWO + THREE]),
        packed([ONE[:-4], TWO[:-2], THREE]),  # without the empty lines between
        packed([ONE, b"\r\n\r\n", TWO, b"", THREE]),
        packed([ONE, TWO, THREE]) + bytes(512),  # padded to a tape's block
    ],
)
def test_every_packing_gives_the_same_records(data: bytes) -> None:
    assert read(data) == (bodies(ONE, TWO, THREE), None)
    assert [one.body for one in WarcRecords(Dribble(data))] == bodies(ONE, TWO, THREE)


def test_a_record_has_its_header() -> None:
    (one,) = WarcRecords(io.BytesIO(ONE))
    assert one == Record(ONE[: ONE.index(b"\r\n\r\n") + 4].lower(), b'{"n": "one"}')


def packings(*records: bytes) -> list[bytes]:
    """As members, as one member, and plain."""
    whole = b"".join(records)
    return [packed(records), gzip.compress(whole), whole]


@pytest.mark.parametrize(
    "length",
    ["", "abc", "-5", "0x10", "0", "3", "99", "16777217", "9" * 18, "9" * 30, "12, 12"],
)
def test_a_wrong_content_length_costs_one_record(length: str) -> None:
    for data in packings(ONE, with_length(TWO, length), THREE):
        assert read(data) == ([*bodies(ONE), "content_length", *bodies(THREE)], None)


def test_a_content_length_that_counts_the_empty_line_costs_nothing() -> None:
    for length, more in (("13", b"\r"), ("16", b"\r\n\r\n")):
        expected = [*bodies(ONE), bodies(TWO)[0] + more, *bodies(THREE)]
        for data in packings(ONE, with_length(TWO, length), THREE):
            assert read(data) == (expected, None)


@pytest.mark.parametrize(
    "broken",
    [
        b"<html>not a record</html>\r\n",
        b"x\r\n",
        b"WARC/1.0\r\nContent-Length: 5\r\n",
        b"WARC/1.0\r\nX: " + b"x" * MAX_HEADER + b"\r\nContent-Length: 0\r\n\r\n",
        b"WARC/x\r\n",
        b"warc/1.0\n" + b"x" * MAX_HEADER + b"\n\n",
    ],
)
def test_what_is_no_record_is_one_bad_record(broken: bytes) -> None:
    for data in packings(ONE, broken, THREE):
        assert read(data) == ([*bodies(ONE), "header", *bodies(THREE)], None)


HEADER, BODY = TWO[:-4].split(b"\r\n\r\n")


@pytest.mark.parametrize(
    "written",
    [
        TWO.replace(b"\r\n", b"\n"),
        TWO.replace(b"WARC/1.0", b"warc/1.0"),
        TWO.replace(b"WARC/1.0", b"Warc/1.1"),
        TWO.replace(b"WARC/1.0", b"WARC/0.18"),
        TWO.replace(b"WARC/1.0\r\n", b"WARC/1.0 \r\n"),
        HEADER.replace(b"\r\n", b"\n") + b"\n\n" + BODY,  # the next record follows at once
        HEADER.replace(b"\r\n", b"\n") + b"\r\n\n" + BODY + b"\n\n",
        HEADER + b"\n\n" + BODY + b"\n",
        TWO.replace(b": 12", b":\r\n 12"),
        TWO.replace(b": 12", b":\n\t12"),
        TWO.replace(b": 12", b" : 12"),
        TWO.replace(b": 12", b":12"),
        TWO.lower(),
        TWO.replace(b"Content-Type: ", b"Content-Type:\r\n\t \r\n "),
    ],
)
def test_other_writers_records_are_read(written: bytes) -> None:
    """Once lost: LF alone (ClueWeb09), warc in lower case, folded lines, no empty line after."""
    for data in packings(ONE, written, THREE):
        assert read(data) == (bodies(ONE, TWO, THREE), None)
        assert [one.body for one in WarcRecords(Dribble(data))] == bodies(ONE, TWO, THREE)


def test_a_file_of_another_writers_records_is_read_from_its_first_to_its_last() -> None:
    for change in (bytes.lower, lambda one: one.replace(b"\r\n", b"\n")):
        for data in packings(*map(change, (ONE, TWO, THREE))):
            assert read(data) == (bodies(ONE, TWO, THREE), None)
            found, ended = read(data[:-9])
            assert found[:2] == bodies(ONE, TWO)
            assert ended


def test_folded_lines_are_one() -> None:
    (one,) = WarcRecords(io.BytesIO(ONE.replace(b"Content-Type: ", b"Content-Type:\r\n\t")))
    assert b"\r\ncontent-type: application/json\r\n" in one.header


def test_after_damage_a_record_in_lower_case_is_found_again() -> None:
    first, second, third = (packed([one.lower()]) for one in (ONE, TWO, THREE))
    damaged = first + second[:30] + b"damage" + second[40:] + third
    assert read(damaged) == ([*bodies(ONE), "gzip", *bodies(THREE)], None)
    plain = ONE.lower() + b"junk\n" + TWO.lower().replace(b": 12", b": 3") + THREE.lower()
    assert read(plain) == ([*bodies(ONE), "header", "content_length", *bodies(THREE)], None)


def test_a_record_without_its_body_does_not_cost_the_next() -> None:
    header = TWO[: TWO.index(b"\r\n\r\n") + 4]
    for data in packings(ONE, header, THREE):
        assert read(data) == ([*bodies(ONE), "content_length", *bodies(THREE)], None)


def test_a_body_above_the_cap_costs_itself() -> None:
    large = record(b" " * (MAX_BODY + 1))
    fits = record(b" " * MAX_BODY)
    expected = [*bodies(ONE), "too_large", *bodies(fits), *bodies(TWO)]
    assert read(packed([ONE, large, fits, TWO])) == (expected, None)
    assert read(ONE + large + fits + TWO) == (expected, None)


def test_a_bomb_is_never_held_in_memory() -> None:
    packer = zlib.compressobj(wbits=31)
    head = b"WARC/1.0\r\nContent-Length: 100000000\r\n\r\n"
    megabyte = bytes(1_000_000)
    bomb = packer.compress(head) + b"".join(packer.compress(megabyte) for _ in range(100))
    seen = 0

    class Watched(WarcRecords):
        def _fill(self, size: int) -> bool:
            nonlocal seen
            answer = super()._fill(size)
            seen = max(seen, len(self._buffer))
            return answer

    records = Watched(io.BytesIO(bomb + packer.flush() + packed([ONE])))
    assert [one.bad or one.body for one in records] == ["too_large", *bodies(ONE)]
    assert seen < 4_000_000


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 30, 100])
def test_a_truncated_gzip_keeps_all_before(cut: int) -> None:
    found, ended = read(packed([ONE, TWO, THREE])[:-cut])
    assert found[:2] == bodies(ONE, TWO)
    assert ended == "truncated: the file ends inside a gzip member"


def test_a_file_cut_in_a_gzip_header_is_truncated() -> None:
    data = packed([ONE])
    for cut in range(1, 11):
        assert read(data + data[:cut]) == (
            bodies(ONE),
            "truncated: the file ends inside a gzip member",
        )


@pytest.mark.parametrize(
    ("cut", "bad"), [(10, "content_length"), (20, "header"), (len(TWO) - 3, "header")]
)
def test_a_truncated_plain_file_keeps_all_before(cut: int, bad: str) -> None:
    expected = ([*bodies(ONE), bad], "truncated: the file ends inside a record")
    assert read(ONE + TWO[:-cut]) == expected


@pytest.mark.parametrize("at", [0, 2, 10, 30, -8, -4])
@pytest.mark.parametrize("last", [False, True])
def test_damaged_gzip_data_costs_one_record(at: int, last: bool) -> None:
    first, second, third = (packed([one]) for one in (ONE, TWO, THREE))
    at %= len(second)
    damaged = second[:at] + bytes(b ^ 0x5A for b in second[at : at + 4]) + second[at + 4 :]
    if last:
        found, ended = read(first + damaged)
        assert found == [*bodies(ONE), "gzip"]
        assert ended is not None
        assert "gzip" in ended
    else:
        expected = ([*bodies(ONE), "gzip", *bodies(THREE)], None)
        assert read(first + damaged + third) == expected
        dribbled = WarcRecords(Dribble(first + damaged + third))
        assert [one.bad or one.body for one in dribbled] == expected[0]


@pytest.mark.parametrize("size", [300, 30_000, 300_000])
def test_a_member_that_is_cut_off_does_not_cost_the_next(size: int) -> None:
    large = record(random.Random(1).randbytes(size))  # does not compress: many pieces
    member = packed([large])
    for cut in (1, 9, 200, len(member) // 2, len(member) - 40):
        data = packed([ONE]) + member[:-cut] + packed([TWO, THREE])
        assert read(data) == ([*bodies(ONE), "gzip", *bodies(TWO, THREE)], None)


@pytest.mark.parametrize("line", [b"WARC/1.0\n", b"\nWARC/", b"WARC/1.0\r\nA: b\r\n"])
def test_very_many_lines_that_begin_a_record_are_not_each_searched_for_its_end(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kilobyte of gzip that holds a core for an hour."""
    searched = 0
    end_of = WarcRecords._header_end

    def counted(self: WarcRecords, most: int = MAX_HEADER) -> int:
        nonlocal searched
        searched += min(most, len(self._buffer))
        return end_of(self, most)

    monkeypatch.setattr(WarcRecords, "_header_end", counted)
    found, _ = read(gzip.compress(line * 10_000 + b"\n" + ONE))
    assert found[-1] == bodies(ONE)[0]
    assert searched <= 4_096 * (len(found) + 1)


def test_very_many_empty_lines_are_skipped_together() -> None:
    assert read(gzip.compress(b"\r\n" * 100_000 + ONE + b"\n" * 100_000)) == (bodies(ONE), None)


def test_what_only_looks_like_a_member_is_passed_over() -> None:
    lures = b"\x1f\x8b\x08" * 5_000 + gzip.compress(b"<html>") + b"\x1f\x8b"
    data = packed([ONE]) + b"x" + lures + packed([TWO])
    assert read(data) == ([*bodies(ONE), "gzip", *bodies(TWO)], None)


def test_what_follows_the_last_member_is_named() -> None:
    found, ended = read(packed([ONE]) + b"<html>")
    assert found == [*bodies(ONE), "gzip"]
    assert ended == "what follows a gzip member is not gzip"


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0), b"\r\n\r\n"])
def test_an_empty_file_has_no_records(data: bytes) -> None:
    records = WarcRecords(io.BytesIO(data))
    assert list(records) == []
    assert records.ended_early is None
    assert records.beginning == data[:40]


@pytest.mark.parametrize("data", [b"<html>", bytes(range(256)), b"\x1f\x8b" + b"\x99" * 99, b"W"])
def test_a_file_of_another_kind_has_no_good_record(data: bytes) -> None:
    found, ended = read(data)
    assert all(one in ("header", "gzip") for one in found)
    assert found or ended


@given(st.data(), st.sampled_from(packings(ONE, TWO, THREE)))
def test_damage_anywhere_costs_records_and_raises_nothing(
    data: st.DataObject, whole: bytes
) -> None:
    at = data.draw(st.integers(0, len(whole)))
    damage = data.draw(st.binary(max_size=8) | st.sampled_from([b"\r\n\r\n", b"\r\nWARC/1.0\r\n"]))
    rest = whole[data.draw(st.integers(at, min(len(whole), at + 50))) :]
    found, ended = read(whole[:at] + damage + rest)
    if whole.startswith(b"WARC") and at > len(ONE):
        assert found[0] == bodies(ONE)[0]
    assert all(
        isinstance(one, bytes) or one in ("header", "content_length", "gzip") for one in found
    )
    assert ended is None or "trunc" in ended or "gzip" in ended


def test_an_error_of_the_stream_passes_through() -> None:
    class Broken(Dribble):
        def read(self, size: int, /) -> bytes:
            return super().read(size) or self._fail()

        def _fail(self) -> bytes:
            raise ConnectionResetError("gone")

    found: list[bytes] = []
    with pytest.raises(ConnectionResetError):
        found.extend(one.body for one in WarcRecords(Broken(packed([warcinfo(), ONE]))))
    assert found == [b"software: test\r\n", *bodies(ONE)]

"""Content codings: their caps. What is taken and refused is in tests/integration/test_download_raw.py."""

import gzip
import zlib

import pytest

from pairmill.workers.download.coding import MAX_MEMBERS, PIECE, BadCoding, decoded

BARE = zlib.compress(bytes(200_000))[2:-4]


@pytest.mark.parametrize(
    ("packed", "coding"),
    [
        (gzip.compress(bytes(5_000_000)), "gzip"),
        (gzip.compress(bytes(900)) * 10, "gzip"),
        (zlib.compress(bytes(5_000_000)), "deflate"),
        (BARE, "deflate"),
        (gzip.compress(bytes(5_000_000))[:-2000], "gzip"),
    ],
)
def test_a_bomb_gives_no_more_than_a_byte_above_the_cap(packed: bytes, coding: str) -> None:
    """Of several members each had the cap of its own."""
    assert len(decoded(packed, (coding,), 1000)) == 1001


def test_members_without_end_end() -> None:
    """20 bytes each: half a million of them in a body took the loop a second."""
    assert len(decoded(gzip.compress(b"x") * (MAX_MEMBERS + 9), ("gzip",), 10_000)) == MAX_MEMBERS


@pytest.mark.parametrize("members", [1, 3])
def test_members_of_more_than_a_piece_are_whole(members: int) -> None:
    """The rest of a piece that a member ends in was lost."""
    data = bytes(i * i % 251 for i in range(3 * PIECE))
    packed = b"".join(gzip.compress(data, 0) for _ in range(members))
    assert decoded(packed, ("gzip",), 10_000_000) == data * members


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_body_that_is_cut_is_none_of_its_beginning(cut: int) -> None:
    """A checksum that is missing may be; a byte of the data may not."""
    packed = gzip.compress(bytes(range(256)), mtime=0)
    if cut <= 8:
        assert decoded(packed[:-cut], ("gzip",), 1000) == bytes(range(256))
    else:
        with pytest.raises(BadCoding) as bad:
            decoded(packed[:-cut], ("gzip",), 1000)
        assert bad.value.cut


def test_of_a_body_that_was_cut_on_purpose_what_can_be_had_is() -> None:
    """robots.txt is read up to 500 KiB."""
    packed = gzip.compress(b"Disallow: /x\n" * 100_000, mtime=0)
    plain = decoded(packed[:-100], ("gzip",), 2_000_000, text=True, whole=False)
    assert plain.startswith(b"Disallow: /x\n" * 1000)

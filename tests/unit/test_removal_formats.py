"""Lists in the formats of those who give them. The examples were made for these tests."""

import json
import random

import pytest

from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.admin.removal_formats import ADAPTERS
from pairmill.ops.admin.removal_pdq import PdqIndex
from pairmill.ops.errors import UserError

MD5, SHA1, SHA256 = "0123456789abcdef" * 2, "01234567" * 5, "89abcdef" * 8
PDQ = "0f" * 32
GOOD = {
    "lines": (
        f"\ufeff# of a colleague\r\nhttp://a.example/x.jpg\r\n\r\n{MD5}\r\npdq:{PDQ}/9\r\n",
        ["http://a.example/x.jpg", MD5, f"pdq:{PDQ}/9"],
    ),
    "csv": (
        f'id,URL,"SHA-1",note,pdq_hash,Quality\n1,http://a.example/x*,{SHA1.upper()},"a, b",,\n2,,,,{PDQ},50\n',
        ["http://a.example/x*", SHA1, f"pdq:{PDQ}/31"],
    ),
    "csv of hashes, semicolons": (
        f"\ufeffMD5;SHA256;Category\n{MD5};{SHA256};A\n", [MD5, SHA256]),
    "csv of places": (
        "host\tprefix\tsample_id\tdhash\n*.b.example\thttp://a.example/al\t7\t-146437365496284177\n",
        ["*.b.example", "http://a.example/al*", "sample:7", "dhash:-146437365496284177"],
    ),
    "vics": (
        json.dumps(
            {"odata.metadata": "x", "value": [
                {"MediaID": 1, "Category": 1, "MD5": MD5, "SHA1": SHA1, "PhotoDNA": "AA=="},
                {"MediaID": 2, "MD5": None, "SHA1": SHA1},
            ]}
        ),
        [MD5, SHA1, SHA1],
    ),
    "threatexchange": (
        json.dumps(
            {"data": [
                {"indicator": {"indicator": PDQ, "type": "HASH_PDQ"}, "tags": []},
                {"indicator": "http://a.example/x.jpg", "type": "URI"},
                {"indicator": "b.example", "type": "DOMAIN"},
                {"indicator": "x", "type": "HASH_TMK"},
            ]}
        ),
        [f"pdq:{PDQ}/31", "http://a.example/x.jpg", "b.example"],
    ),
    "threatexchange, a record a line": (
        json.dumps({"indicator": MD5, "type": "HASH_MD5"}) + "\n\n"
        + json.dumps({"indicator": SHA256, "type": "hash_sha256"}) + "\n",
        [MD5, SHA256],
    ),
    "spawning": (
        '{"urls": [{"url": "http://a.example/x.jpg", "optOut": true},'
        ' {"url": "http://a.example/y.jpg", "optOut": false}]}',
        ["http://a.example/x.jpg"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_a_list_names_is_read(name: str) -> None:
    text, meant = GOOD[name]
    adapter = ADAPTERS[name.partition(" ")[0].rstrip(",")]
    assert [entry.source for entry in adapter(text.splitlines(keepends=True))] == meant


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("lines", f"{MD5}\n{MD5}0\n", "line 2: .* is no http"),
        ("csv", "name,date\nx,y\n", "line 1: none of its columns"),
        ("csv", "", "line 1: none of its columns"),
        ("csv", f"md5,note\n{MD5}\n", "line 2: it has 1 columns, and the first line 2"),
        ("csv", f"md5,note\n{MD5},\n,x\n", "line 3: it names nothing"),
        ("csv", f"md5\n{SHA1}\n", "line 2: .* is no md5"),
        ("csv", f'md5\n{MD5}\n"{MD5}\n', "line 3: "),
        ("csv", "url\nexample.org\n", "line 2: 'example.org' is no URL"),
        ("csv", "host\nhttp://a.example/\n", "line 2: .* is no host"),
        ("csv", "prefix\nhttp://\n", "line 2: .* too short a prefix"),
        ("csv", f"pdq,quality\n{PDQ},49\n", "line 2: .* flat image"),
        (
            "threatexchange",
            f'{{"data": [{{"type": "HASH_MD5", "indicator": "{MD5}"}}],'
            ' "paging": {"next": "https://a.example/?after=x"}}',
            "one page of several",
        ),
        (
            "vics",
            f'{{"value": [{{"MD5": "{MD5}"}}], "@odata.nextLink": "https://a.example/"}}',
            "one page of several",
        ),
        ("csv", f"pdq\n{'00' * 32}\n", "line 2: .* flat image"),
        ("csv", f"sha256\n{'00' * 32}\n", "line 2: .* of nothing"),
        ("vics", '{"value": [{"MediaID": 1}]}', "record 1: it has no MD5"),
        ("vics", '{"value": {}}', "has no list 'value'"),
        ("vics", '{"value": [1]}', "record 1: it is no JSON object"),
        ("vics", "not JSON", "it is no JSON"),
        ("threatexchange", '{"indicator": "x", "type": "PE_IMPHASH"}', "record 1: 'PE_IMPHASH' is no type"),
        ("threatexchange", '{"indicator": 7, "type": "URI"}', "record 1: a text was expected, and it is '7'"),
        ("spawning", '{"url": "http://a.example/"}\n{"url": 1}', "line 1: it has no optOut"),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_is_named(form: str, text: str, says: str) -> None:
    """Would catch an entry that is passed over in silence: a release would hold what it names."""
    with pytest.raises(UserError, match=says):
        list(ADAPTERS[form](text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("http://*", "too short a prefix"),
        ("http://a.example*", "too short a prefix"),
        ("http://a.example/#x*", "has a fragment"),
        (f"pdq:{PDQ}/32", "31 is the most"),
        (f"pdq:{PDQ[:-2]}", "is no PDQ"),
        (f"pdq:{'ff' * 32}", "flat image"),
        ("dhash:0", "flat image"),
        ("dhash:0x8000000000000000", "flat image"),
        ("dhash:99999999999999999999", "64 bits"),
        ("sample:-1", "is no SAMPLE_ID"),
        ("md5:" + SHA1, "is no md5"),
        ("00" * 16, "of nothing"),
    ],
)
def test_what_would_remove_strangers_is_refused(given: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(given)


def test_near_pdqs_are_found_without_exception() -> None:
    """The index finds what comparing each with each finds: planted at every distance about the
    limits, the bits in words where the look-up has least to go by."""
    rng = random.Random(7)
    removals = [rng.randbytes(32) for _ in range(300)]
    distances = [rng.choice((0, 8, 30, 31)) for _ in removals]
    images = [rng.randbytes(32) for _ in range(2000)]
    for removal in removals:
        for bits in (0, 8, 9, 30, 31, 32):
            even = rng.random() < 0.5  # two in each word but one, or anywhere
            turned = [16 * i + j for i in range(16) for j in (3, 12)] if even else range(256)
            mask = sum(1 << bit for bit in rng.sample(list(turned), bits))
            images.append((int.from_bytes(removal) ^ mask).to_bytes(32))
    near = PdqIndex(removals, distances).near(images)
    numbers = [int.from_bytes(removal) for removal in removals]
    meant = [
        (i, j)
        for i, image in enumerate(map(int.from_bytes, images))
        for j, number in enumerate(numbers)
        if (image ^ number).bit_count() <= distances[j]
    ]
    assert list(zip(near.images.tolist(), near.removals.tolist(), strict=True)) == meant
    assert len(meant) >= 900
    assert PdqIndex([], []).near(images).images.tolist() == []
    assert PdqIndex(removals, distances).near([]).images.tolist() == []

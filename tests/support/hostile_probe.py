"""What was tried with an extract worker's probe, which says whether a URL is known."""

from typing import LiteralString, cast

import pytest

from pairmill.workers.errors import Malformed
from support.database import key
from support.hostile_login import (
    BOUNDED,
    OPEN,
    REFUSED,
    Cases,
    OnSession,
    Stage,
    refused_each,
    state_of,
)

CASES = Cases()
case = CASES.case
URLS = [f"http://h{n}.example/{n}.jpg" for n in range(8)]
KEYS = [key(url).bytes for url in URLS]


def file(s: Stage) -> int:
    """eve's lease on a file of its own."""
    s.db.add_wat(f"eve-{s.db.value('select count(*) from mill.wat_file')}.wat")
    return s.claim(s.eve, s.eve_instance)


@case(
    "asking which URLs are known under another's lease, an ended one or another kind's, or as another kind",
    REFUSED,
    "PM001 PM002 42501",
)
def _(s: Stage) -> None:
    mine = file(s)
    s.db.add_wat("bob's.wat")
    bobs = s.claim(s.bob, s.bob_instance)
    ask = "select api.probe_v1({}, md5('http://a/')::bytea)"
    s.eve.execute("select api.release_v1(%s)", (mine,))
    for number in (bobs, mine, bobs + 2**40, -1, "null"):
        refused_each(s.eve, "PM001", ask.format(number))
    s.db.extract(URLS)
    s.db.close_batches()
    downloads = s.db.claim("download")
    assert downloads
    refused_each(s.eve, "PM001", ask.format(downloads.lease_id))
    for kind in ("download", "score", "researcher"):
        if kind == "researcher":
            other = s.session(s.db.dsn)
            other.execute(cast(LiteralString, f"set session authorization {s.db.group(kind)}"))
        else:
            other = s.session(s.db.login(kind))
        refused_each(other, "42501", ask.format(downloads.lease_id))
    s.admin.execute("select mill.disable_worker('bob-volunteer', '')")
    assert state_of(s.session(s.bob_dsn), ask.format(bobs)) in ("42501", "PM002")


@case(
    "asking for what are no keys, for more than 25,000 at once, or for more than 2,000,000 under a lease",
    REFUSED,
    "PM003",
)
def _(s: Stage) -> None:
    lease = file(s)
    ask = f"select length(api.probe_v1({lease}, {{}}))"
    for keys in ("null", "'x'", "repeat('x', 15)::bytea", "repeat('x', 17)::bytea"):
        assert state_of(s.eve, ask.format(keys)) == "PM003"
    for count, state in ((25_000, "00000"), (25_001, "PM003"), (2_000_001, "PM003")):
        assert state_of(s.eve, ask.format(f"repeat('x', 16 * {count})::bytea")) == state
    probed = "select probed from mill.lease where lease_id = %s"
    assert s.db.value(probed, lease) == 25_000
    s.admin.execute("update mill.lease set probed = 1999992 where lease_id = %s", (lease,))
    assert len(OnSession(s.eve).probe(lease, KEYS)) == 8
    with pytest.raises(Malformed, match="more than 2000000 keys"):
        OnSession(s.eve).probe(lease, KEYS[:1])
    assert s.db.value(probed, lease) == 2_000_000


@case(
    "which URLs are known, whoever gave them",
    BOUNDED,
    "yes or no to a URL that it can name, 2,000,000 a lease; of removed ones: no",
)
def _(s: Stage) -> None:
    s.db.extract(URLS[:4])
    s.admin.execute(
        "insert into mill.removal (source, md5, reason) values ('', md5(%s)::uuid, '')", (URLS[0],)
    )
    lease = file(s)
    known = OnSession(s.eve).probe(lease, KEYS)
    assert known == [False, True, True, True, False, False, False, False]


@case("asking for known URLs and rolling back, so that they count under no lease", OPEN)
def _(s: Stage) -> None:
    s.db.extract(URLS)
    lease = file(s)
    s.eve.execute("begin")
    assert OnSession(s.eve).probe(lease, KEYS) == [True] * 8
    s.eve.execute("rollback")
    assert s.db.value("select probed from mill.lease where lease_id = %s", lease) == 0

"""The DSN as it is pasted: what is missing is said, and no part of a password is."""

from pathlib import Path

import pytest

from pairmill.workers.dsn import checked, checked_admins, here_only, unverified
from pairmill.workers.errors import Refused

PASSWORD = "Zq3-Wx_9"
WHOLE = (
    f"postgresql://pm_0123456789ab:{PASSWORD}@db.example.org:6432/pairmill"
    "?sslmode=verify-full&sslrootcert=system"
)


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volunteer's: no ~/.pgpass, no roots, no variables of libpq."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGPASSWORD", "PGPASSFILE", "PGSSLCERT", "PGSSLROOTCERT", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)


def fault(dsn: str) -> str:
    with pytest.raises(Refused) as refused:
        checked(dsn)
    said = str(refused.value)
    assert "PAIRMILL_WORKER_DSN" in said or "write its place into the DSN" in said
    assert "\n" not in said and not any(PASSWORD[:n] in said for n in range(3, len(PASSWORD) + 1))
    return said


def test_every_prefix_is_refused_or_warned_of() -> None:
    """Would catch: a DSN cut off while it was pasted that leads elsewhere, or nowhere, in silence;
    a sentence of libpq's, which quotes a password as a port."""
    taken = []
    for length in range(len(WHOLE)):
        try:
            dsn = checked(WHOLE[:length])
        except Refused:
            fault(WHOLE[:length])
        else:
            taken.append(dsn)
            assert "cut off at the ?" in (unverified(dsn) or "")
    # within the database's name, which the server alone knows, and before the options
    name = WHOLE.index("/pairmill") + 1
    assert taken == [*(WHOLE[:n] for n in range(name + 1, name + 9)), WHOLE[: name + 9]]
    assert (checked(WHOLE), unverified(WHOLE)) == (WHOLE, None)


@pytest.mark.parametrize(
    "pasted",
    [f"{WHOLE}\n", f"  '{WHOLE}'", f'"{WHOLE}"', f"“{WHOLE}”", f"\ufeff{WHOLE}\r\n",
     f"export PAIRMILL_WORKER_DSN='{WHOLE}'", f"<{WHOLE}>"],
)  # fmt: skip
def test_what_a_paste_leaves_around_it_is_taken_away(pasted: str) -> None:
    assert checked(pasted) == WHOLE


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("", "there is no DSN"),
        (" '' ", "there is no DSN"),
        ("https://db.example.org/", "is a web address"),
        ("db.example.org", "is none: one looks like postgresql://"),
        ("pm_0123456789ab", "is none"),
        ("postgresql://pm_…", "is the one of an example"),
        (WHOLE.replace(f":{PASSWORD}", ""), "has no password"),
        (WHOLE.replace("pm_0123456789ab", ""), "has no login"),
        (WHOLE.replace("db.example.org", ""), "has no host"),
        (WHOLE.replace("6432", "64x2"), "has no number after its host's colon"),
        (WHOLE.replace("6432", "70000"), "has no number after its host's colon"),
        (WHOLE.replace("db.example.org", "db_<x>"), "has no host that can be one"),
        (WHOLE[:60] + "\n" + WHOLE[60:], "has a space or a line break in it"),
        (WHOLE.replace(PASSWORD, f"{PASSWORD}%zz"), "has a % without two hexadecimal digits"),
        (WHOLE.replace(PASSWORD, f"{PASSWORD}@x"), "has a character in its password"),
        (WHOLE.replace(PASSWORD, f"{PASSWORD}/x"), "has a character in its password"),
        (WHOLE.replace(PASSWORD, f"{PASSWORD}#x"), "has a character in its password"),
        (WHOLE.replace("&", "&amp;"), "has &amp; in it"),
        (WHOLE.replace("?", "\\?").replace("&", "\\&"), "has a backslash in it"),
        (WHOLE.partition("&")[0], "its &sslrootcert= is lost"),
        (WHOLE.replace("=system", "=/none/root.pem"), "names a file as sslrootcert that is not"),
        (f"{WHOLE}&sslcert=/none/a.pem", "names a file as sslcert that is not here, /none/a.pem"),
        ("host=db nonsense=x", "ends within its options"),
    ],
)  # fmt: skip
def test_fault_is_named(dsn: str, says: str) -> None:
    assert says in fault(dsn)


@pytest.mark.parametrize(
    "dsn",
    ["host=h user=u password='x y'", "host=127.0.0.1 user=x password=y dbname=z", "postgres://u:p@[::1]:5433/d", "postgresql://u:p@a,b/d",
     "postgresql://u:p@%2Frun%2Fpostgresql:5433/d", "postgresql://u:%40%2F@h/d"],
)  # fmt: skip
def test_other_right_ones_are_taken(dsn: str) -> None:
    assert checked(dsn) == dsn


def test_password_may_come_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / ".pgpass").write_text("*:*:*:*:x\n")
    assert checked("postgresql://u@h/d")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://u:p@h/d", None),
        ("postgresql:///pairmill", None),
        ("postgresql:///pairmill?host=/run/postgresql&sslmode=verify-full", None),
        ("dbname=pairmill", None),
        (f"postgresql://admin:{PASSWORD}", "ends before the host"),
        (f"http://admin:{PASSWORD}@h/d", "is a web address"),
        (f"mysql://admin:{PASSWORD}@h/d", "is none"),
    ],
)
def test_an_admins_url_may_leave_out_what_comes_from_elsewhere(url: str, says: str | None) -> None:
    if says is None:
        assert checked_admins(url)
        return
    with pytest.raises(Refused, match=says) as refused:
        checked_admins(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "here", "warned"),
    [
        ("db.example.org", False, True), ("8.8.8.8", False, True), ("10.0.0.7", False, False),
        ("postgres", False, False), ("db.lan", False, False), ("localhost", True, False),
        ("127.0.0.1", True, False), ("[::1]", True, False), ("%2Frun%2Fpostgresql", True, False),
    ],
)  # fmt: skip
def test_dsn_that_is_no_good_elsewhere(host: str, here: bool, warned: bool) -> None:
    dsn = f"postgresql://u:p@{host}:5432/d"
    assert (here_only(dsn) is not None, unverified(dsn) is not None) == (here, warned)

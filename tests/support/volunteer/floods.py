"""More of something than anybody should want: connections, memory, files, lines."""

from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from support.hostile_login import (
    BOUNDED,
    BUSY,
    IDLE,
    OPEN,
    REFUSED,
    Cases,
    Stage,
    refused_each,
    state_of,
    value,
)
from support.line import wait_until

CASES = Cases()
case = CASES.case


@case("more connections than its limit", REFUSED, "53300")
def _(s: Stage) -> None:
    for _ in range(7):
        s.session(s.eve_dsn)
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        s.session(s.eve_dsn)
    assert s.db.value("select rolconnlimit from pg_roles where rolname = %s", s.names["me"]) == 8
    s.session(s.bob_dsn)


@case("prepared transactions", REFUSED, "55000")
def _(s: Stage) -> None:
    assert s.db.value("select current_setting('max_prepared_transactions')") == "0"
    s.eve.execute("begin")
    assert state_of(s.eve, "prepare transaction 'x'") == "55000"


@case("a value above 1 GB, a value nested without end", REFUSED, "54000 54001")
def _(s: Stage) -> None:
    assert state_of(s.eve, "select repeat('x', 1073741824)") == "54000"
    assert state_of(s.eve, "select repeat('[', 1000000)::json") == "54001"
    assert value(s.eve, "select 1") == 1


@case("a login that was disabled", REFUSED, "42501 PM002 53300")
def _(s: Stage) -> None:
    """It is told why, by the one function left to it."""
    _, lease = s.lease()
    s.admin.execute("select mill.disable_worker('eve-volunteer', 'lies')")
    with pytest.raises(psycopg.OperationalError):
        s.eve.execute("select 1")
    s.eve = s.session(s.eve_dsn)
    found = s.eve.execute("select state, why, live_leases from api.me_v1()").fetchone()
    assert found and found[::2] == ("disabled", 1) and found[1].endswith("UTC: lies; ask the admin")
    for function in ("register_v1", "claim_v1", "heartbeat_v1", "fail_v1"):
        arguments = {"register_v1": "'0', 1", "claim_v1": "1", "fail_v1": f"{lease}, 'x', true"}
        call = f"select api.{function}({arguments.get(function, str(lease))})"
        assert state_of(s.eve, call) == ("PM002" if function == "register_v1" else "42501")
    s.session(s.eve_dsn)
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        s.session(s.eve_dsn)


@case("a login that was disabled with `--no-login`", REFUSED, "28000")
def _(s: Stage) -> None:
    s.admin.execute("select mill.disable_worker('eve-volunteer', p_close => true)")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        s.session(s.eve_dsn)


@case("a disabled login that stays connected", BOUNDED, IDLE)
def _(s: Stage) -> None:
    s.admin.execute("select mill.disable_worker('eve-volunteer')")
    s.eve = s.session(s.eve_dsn)
    s.watchdog()


@case("its own time-outs, and a query without end", BOUNDED, BUSY)
def _(s: Stage) -> None:
    assert (
        value(s.eve, "show statement_timeout"),
        value(s.eve, "show idle_in_transaction_session_timeout"),
    ) == ("10min", "5min")
    s.admin.execute(
        cast(LiteralString, f"alter role {s.names['me']} set statement_timeout = '20ms'")
    )
    eve = s.session(s.eve_dsn)
    # until it says otherwise
    for bomb in (
        "with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r",
        "select count(*) from generate_series(1, 1000000000000)",
        "select count(*) from (select g from generate_series(1, 100000000) g order by g::text) x",
    ):
        assert state_of(eve, bomb) == "57014"
    for setting, worth in (
        ("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0"), ("idle_session_timeout", "0"),
        ("lock_timeout", "0"),
    ):  # fmt: skip
        eve.execute(cast(LiteralString, f"set {setting} = '{worth}'"))
    assert value(eve, "show statement_timeout") == "0"
    # for longer than the admin's 20 ms, in a query that a real bomb differs from by its size only
    assert value(eve, "select count(*) from generate_series(1, 1000000)") == 1_000_000
    eve.execute(
        cast(LiteralString, f"alter role {s.names['me']} reset all")
    )  # and from now on at every login
    eve = s.session(s.eve_dsn)
    assert value(eve, "show statement_timeout") == "0"
    eve.execute("set statement_timeout = '60s'")  # in case that nobody ends it
    s.eve = eve
    with ThreadPoolExecutor() as pool:
        endless = pool.submit(
            state_of, eve, "select count(*) from generate_series(1, 1e12::bigint)"
        )
        active = "select state = 'active' from pg_stat_activity where pid = %s"
        wait_until(lambda: s.db.value(active, eve.info.backend_pid), "the query")
        s.watchdog(600, 0)
        assert endless.result() == "57P01"
    assert value(s.bob, "select 1") == 1


@case("its own memory", OPEN)
def _(s: Stage) -> None:
    for setting, worth in (
        ("work_mem", "2147483647kB"), ("hash_mem_multiplier", "1000"), ("temp_buffers", "8000000"),
    ):  # fmt: skip
        s.eve.execute(cast(LiteralString, f"set {setting} = '{worth}'"))
    assert value(s.eve, "select length(repeat('0123456789', 20000000))") == 200_000_000


@case("temporary files", BOUNDED, "1 GB a connection: temp_file_limit")
def _(s: Stage) -> None:
    sort = "select count(*) from (select g from generate_series(1, 200000) g order by g::text) x"
    s.eve.execute("set work_mem = '64kB'")
    assert value(s.eve, "show temp_file_limit") == "1GB"
    assert state_of(s.eve, sort) == "00000"
    # the same with less, since nobody wants to write a GB: it takes it off in no way
    s.admin.execute(cast(LiteralString, f"alter role {s.names['me']} set temp_file_limit = '1MB'"))
    eve = s.session(s.eve_dsn)
    refused_each(
        eve, "42501", "set temp_file_limit = -1", "set local temp_file_limit = '2MB'",
        "select set_config('temp_file_limit', '-1', false)",
        "reset temp_file_limit",
        f"alter role {s.names['me']} set temp_file_limit = -1", f"alter role {s.names['me']} reset temp_file_limit",
        f"alter role {s.names['me']} in database {s.names['db']} set temp_file_limit = -1",
    )  # fmt: skip
    with pytest.raises(psycopg.OperationalError, match="temp_file_limit"):
        s.session(make_conninfo(s.eve_dsn, options="-c temp_file_limit=-1"))
    for harmless in ("reset all", "discard all", f"alter role {s.names['me']} reset all"):
        eve.execute(cast(LiteralString, harmless))
    eve = s.session(s.eve_dsn)
    eve.execute("set work_mem = '64kB'")
    assert state_of(eve, sort) == "53400"


@case("cursors WITH HOLD", OPEN)
def _(s: Stage) -> None:
    for n in range(100):
        s.eve.execute(
            cast(LiteralString, f"declare c{n} cursor with hold for select repeat('x', 10000)")
        )
    assert value(s.eve, "select count(*) from pg_cursors where is_holdable") == 100


@case("its own password", OPEN)
def _(s: Stage) -> None:
    s.eve.execute(cast(LiteralString, f"alter role {s.names['me']} password 'x'"))
    assert value(s.session(make_conninfo(s.eve_dsn, password="x")), "select 1") == 1
    with pytest.raises(psycopg.OperationalError):
        s.session(s.eve_dsn)


@case("a flood of NOTIFY", OPEN)
def _(s: Stage) -> None:
    listener = s.session(s.eve_dsn)
    listener.execute("listen flood")
    listener.execute("begin")
    listener.execute(
        "select 1"
    )  # in a transaction it reads nothing, and what it has not read is kept
    s.eve.execute(
        "select pg_notify('flood', g || repeat('x', 7900)) from generate_series(1, 10000) g"
    )
    assert s.db.value("select pg_notification_queue_usage()") > 0.005
    listener.execute("rollback")


@case("a flood of lines in the server's log", OPEN)
def _(s: Stage) -> None:
    logged: list[str] = []
    s.eve.add_notice_handler(lambda notice: logged.append(notice.severity_nonlocalized or ""))
    s.eve.execute("set client_min_messages = log")
    s.eve.execute("set debug_print_plan = on")
    s.eve.execute("select 1")
    assert logged.count("LOG") == 1  # the same line is in the server's log: a plan a statement
    assert (
        s.db.value("select current_setting('log_min_error_statement')") == "error"
    )  # and each wrong statement, whole


@case("register_v1 10,000 times", BOUNDED, "one row more than it has claimed under, a connection")
def _(s: Stage) -> None:
    s.batches(2)
    rows = "select count(*) from mill.instance"
    before = s.db.value(rows)
    s.eve.execute("select api.register_v1(g::text, 1) from generate_series(1, 10000) g")
    assert s.db.value(rows) == before
    s.claim(s.eve, s.eve_instance)
    assert s.register(s.eve) != s.eve_instance  # under which something was claimed
    s.eve.execute("select api.register_v1(g::text, 1) from generate_series(1, 10000) g")
    assert s.db.value(rows) == before + 1
    # one that does not commit holds up nobody, and costs a row
    s.eve.execute("begin")
    s.register(s.eve)
    other = s.impatient(s.eve_dsn)
    for _ in range(3):
        s.register(other)
    assert s.db.value(rows) == before + 2
    assert s.claim(s.bob, s.bob_instance)

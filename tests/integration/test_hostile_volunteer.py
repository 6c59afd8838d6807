"""A volunteer's login, on a secured database, in the hands of somebody who means ill.

CASES is the table of what was tried, see tests/hostile_login.py. docs/security.md shows the same
table; the last test compares them.
"""

import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import LiteralString, cast

import psycopg
import pytest
from database import Database, new_database, outcomes, outcomes_of
from hostile_login import (
    BLOCKED,
    BOUNDED,
    BUSY,
    IDLE,
    OPEN,
    REFUSED,
    Case,
    Cases,
    OnSession,
    Stage,
    on_stage,
    refused_each,
    state_of,
    value,
)
from line import wait_until
from psycopg.conninfo import make_conninfo

from pairmill.schema.outcomes import Outcome, ScoreOutcome
from pairmill.workers.download.calls import OptOuts, Outcomes
from pairmill.workers.errors import Malformed
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.steward.calls import StewardQueue
from pairmill.workers.steward.watchdog import Watchdog


@pytest.fixture(scope="module")
def database(server: str) -> Iterator[Database]:
    with new_database(server) as db:
        yield db


@pytest.fixture
def stage(database: Database) -> Iterator[Stage]:
    """Each time as new, with other logins: a database of its own would cost five times as much."""
    with on_stage(database) as made:
        yield made


@pytest.fixture(scope="module")
def shared(server: str) -> Iterator[Stage]:
    """One database for all that is refused and changes nothing."""
    with new_database(server) as db:
        made = Stage(db)
        made.batches()
        try:
            yield made
        finally:
            made.close()


# ---- refused statements -------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusals:
    states: str  # SQLSTATEs, any of them
    statements: str  # one a line; {me}, {other}, {db}, {pid} are filled in


REFUSALS = {
    "its own tables, types, functions, schemas, temporary ones too": Refusals("42501 3F000", """
        create temp table x (a int)
        create temp sequence x
        create view pg_temp.x as select 1
        create function pg_temp.f() returns int language sql return 1
        create table x (a int)
        create table public.x (a int)
        create table api.x (a int)
        create table mill.x (a int)
        select 1 into x
        create sequence x
        create view x as select 1
        create materialized view x as select 1
        create type x as (a int)
        create domain x as int
        create schema x
        create schema pg_x
        create function f() returns int language sql return 1
        create function public.f() returns int language sql return 1
        create function pg_catalog.f() returns int language sql return 1
        create or replace function api.me_v1() returns int language sql return 1
        create procedure public.p() language sql as 'select 1'
        create aggregate public.a(int) (sfunc = int4pl, stype = int)
        create cast (int as text) without function
        create operator public.+ (leftarg = int, rightarg = int, procedure = int4pl)
        create operator pg_catalog.+ (leftarg = int, rightarg = int, procedure = int4pl)
        create operator class public.c for type int using btree as storage int
        create collation public.c from "C"
        create conversion public.c for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1
        create text search dictionary public.d (template = simple)
        create access method x type index handler bthandler
        create event trigger e on ddl_command_start execute function f()
        create publication p
        create subscription s connection 'host=x' publication p
        create tablespace t location '/tmp'
        create database x
        create role x
        create trigger t before insert on mill.task execute function f()
        create rule r as on select to mill.task do instead select 1
        create policy p on mill.task
        create statistics public.s on a, b from mill.task
    """),
    "code blocks (DO)": Refusals("42501", """
        do $$ begin loop end loop; end $$
        do language plpgsql $$ begin end $$
    """),
    "large objects": Refusals("42501", """
        select lo_create(0)
        select lo_creat(-1)
        select lo_from_bytea(0, 'x')
        select lo_open(1, 131072)
        select lo_put(1, 0, 'x')
        select lo_get(1)
        select lo_unlink(1)
        select loread(0, 1)
        select lowrite(0, 'x')
        select lo_import('/etc/passwd')
        select lo_export(1, '/tmp/x')
        select * from pg_largeobject
    """),
    "advisory locks, sleeping": Refusals("42501", """
        select pg_advisory_lock(1)
        select pg_advisory_lock(1, 1)
        select pg_advisory_xact_lock(g) from generate_series(1, 1000000) g
        select pg_advisory_lock_shared(g) from generate_series(1, 1000000) g
        select pg_try_advisory_lock(1)
        select pg_try_advisory_xact_lock_shared(1)
        select pg_sleep(1)
        select pg_sleep_for('1 hour')
        select pg_sleep_until('infinity')
    """),
    "a flood of WAL (pg_logical_emit_message)": Refusals("42501", """
        select pg_logical_emit_message(false, 'x', repeat('x', 10000000))
        select pg_logical_emit_message(true, 'x', '\\x00'::bytea)
    """),
    "files and programs of the server": Refusals("42501", """
        copy (select 1) to '/tmp/x'
        copy (select 1) to program 'true'
        copy mill.task from '/etc/passwd'
        copy mill.task from program 'true'
        copy pg_catalog.pg_class from program 'true'
        select pg_read_file('PG_VERSION')
        select pg_read_file('/etc/passwd')
        select pg_read_binary_file('PG_VERSION')
        select pg_stat_file('postgresql.conf')
        select pg_ls_dir('.')
        select pg_ls_waldir()
        select pg_ls_logdir()
        select pg_ls_tmpdir()
        select pg_ls_archive_statusdir()
        select pg_current_logfile()
        select current_setting('data_directory')
        select current_setting('hba_file')
        select * from pg_hba_file_rules
        select * from pg_ident_file_mappings
        select * from pg_file_settings
    """),
    "extensions, foreign servers, libraries, languages": Refusals("42501 3F000 0A000 42704 58P01", """
        create extension dblink
        create extension postgres_fdw
        create extension file_fdw
        create extension adminpack
        create extension pg_stat_statements
        create extension plpython3u
        create foreign data wrapper w
        create server s foreign data wrapper w
        create user mapping for current_user server s
        import foreign schema x from server s into y
        create language plpython3u
        load 'auto_explain'
        load '$libdir/plugins/x'
        drop extension plpgsql
        alter extension plpgsql update
    """),
    "becoming another role": Refusals("42501 22023", """
        set role {other}
        set role {db}_owner
        set role {db}_score
        set role {db}_steward
        set role pg_read_all_data
        set session authorization {other}
        set session authorization {db}_owner
        set local session authorization {other}
    """),
    "more rights or connections for its own login": Refusals("42501 0A000", """
        alter role {me} superuser
        alter role {me} createrole
        alter role {me} createdb
        alter role {me} replication
        alter role {me} bypassrls
        alter role {me} connection limit -1
        alter role {me} connection limit 1000
        alter role {me} valid until 'infinity'
        alter role {me} rename to root
        alter role {me} nologin
        drop role {me}
        drop role {other}
        comment on role {me} is 'x'
    """),
    "another role's password, settings, rights": Refusals("42501", """
        alter role {other} password 'x'
        alter role {other} set statement_timeout = 1
        alter role {other} in database {db} set search_path = x
        alter role {other} reset all
        alter role {other} connection limit 0
        alter role {db}_download set statement_timeout = 1
        alter role {db}_owner login password 'x'
        alter role all set statement_timeout = 1
        alter database {db} set statement_timeout = 1
        alter database {db} rename to x
        drop database {db}
        drop owned by {other}
        reassign owned by {db}_owner to {me}
        alter default privileges for role {db}_owner grant all on tables to public
    """),
    "granting roles or what belongs to others": Refusals("42501", """
        grant {db}_owner to {me}
        grant {db}_score to {me}
        grant {db}_researcher to {me}
        grant {db}_download to {other}
        grant {me} to {other}
        grant pg_read_all_data to {me}
        grant pg_signal_backend to {me}
        grant {db}_download to {me} with admin option
        revoke {db}_download from {other}
        grant select on all tables in schema mill to {me}
        grant execute on all functions in schema mill to {me}
        grant usage on schema mill to {me}
        grant usage on language plpgsql to {me}
        grant select on pg_catalog.pg_authid to {me}
        grant execute on function pg_catalog.pg_sleep(double precision) to {me}
        alter schema api owner to {me}
        alter function api.hello_v1 owner to {me}
        alter function api.hello_v1 security invoker
        alter table mill.task owner to {me}
    """),
    "settings of the server, replication, its log and its statistics": Refusals("42501 55000", """
        alter system set work_mem = '64kB'
        select pg_reload_conf()
        select pg_rotate_logfile()
        select pg_switch_wal()
        select pg_promote()
        select pg_wal_replay_pause()
        select pg_create_restore_point('x')
        select pg_backup_start('x')
        select pg_create_physical_replication_slot('x')
        select pg_create_logical_replication_slot('x', 'pgoutput')
        select pg_drop_replication_slot('x')
        select pg_replication_origin_create('x')
        select pg_stat_reset()
        select pg_stat_reset_shared('bgwriter')
        select pg_log_backend_memory_contexts(pg_backend_pid())
        select pg_import_system_collations('pg_catalog')
        checkpoint
        set session_replication_role = 'replica'
        set log_statement = 'none'
        set log_min_messages = 'panic'
        set lo_compat_privileges = on
        set deadlock_timeout = '1h'
        set temp_file_limit = -1
        set zero_damaged_pages = on
        set allow_system_table_mods = on
        set track_activities = off
        select set_config('session_preload_libraries', 'x', false)
        alter role {me} set temp_file_limit = -1
        reindex database {db}
        reindex system {db}
    """),
    "ending or cancelling others' sessions": Refusals("42501", """
        select pg_cancel_backend({pid})
        select pg_terminate_backend({pid})
        select pg_terminate_backend(pid) from pg_stat_activity where usename = '{other}'
        select pg_terminate_backend(pid) from pg_stat_activity where usename <> '{me}' and datname = '{db}'
    """),
    "passwords and contents in the catalogs": Refusals("42501", """
        select * from pg_authid
        select * from pg_shadow
        select * from pg_statistic
        select * from pg_statistic_ext_data
        select * from pg_subscription
        select * from pg_user_mapping
        select * from pg_shmem_allocations
        select * from pg_backend_memory_contexts
        select query_to_xml('select * from mill.worker', true, true, '')
        select nextval('mill.lease_number')
    """),
    "pg_stat_statements": Refusals("42P01 42501", """
        select * from pg_stat_statements
    """),
}  # fmt: skip


def lines(refusals: Refusals) -> list[str]:
    return [line.strip() for line in refusals.statements.strip().splitlines()]


@pytest.mark.parametrize(
    ("group", "statement"), [(g, s) for g, r in REFUSALS.items() for s in lines(r)]
)
def test_statement_is_refused(shared: Stage, group: str, statement: str) -> None:
    if "{" in statement:
        statement = statement.format(**shared.names)
    assert state_of(shared.eve, statement) in REFUSALS[group].states.split()


def test_nothing_of_what_was_refused_left_a_trace(shared: Stage) -> None:
    assert shared.db.rows("select extname from pg_extension") == [("plpgsql",)]
    owned = "select from pg_{0} where {1}owner = (select oid from pg_roles where rolname = %s)"
    for catalog, prefix in (
        ("class", "rel"), ("proc", "pro"), ("type", "typ"), ("namespace", "nsp"), ("operator", "opr"),
    ):  # fmt: skip
        assert shared.db.rows(owned.format(catalog, prefix), shared.names["me"]) == []


# ---- everything else: a function a case ---------------------------------------------------------


CASES = Cases({name: Case(REFUSED, r.states) for name, r in REFUSALS.items()})
case = CASES.case


@case("reading, writing, truncating, copying, locking any table or view", REFUSED, "42501 0A000")
def _(s: Stage) -> None:
    tables = [f"{schema}.{table}" for schema, table in s.db.rows(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = relnamespace"
        " where nspname in ('mill', 'inbox', 'report') and relkind in ('r', 'p', 'v', 'm', 'S')"
    )]  # fmt: skip
    assert len(tables) > 60
    for table in tables:
        refused_each(
            s.eve, "42501 0A000",
            f"select * from {table}", f"select count(*) from {table}", f"table {table}",
            f"select t::text from {table} t", f"explain analyze select * from {table}",
            f"copy {table} to stdout", f"copy (select * from {table}) to stdout",
            f"copy {table} from stdin", f"insert into {table} default values",
            f"update {table} set tableoid = 0", f"delete from {table}", f"truncate {table} cascade",
            f"merge into {table} t using (select 1) x on true when matched then delete",
            f"analyze {table}", f"drop table {table}",
            f"alter table {table} disable trigger all", f"comment on table {table} is ''",
        )  # fmt: skip
        s.eve.execute("begin")
        refused_each(s.eve, "42501", f"lock table {table} in access share mode")
        s.eve.execute("rollback")


@case("calling a function of mill, or another kind's function of api", REFUSED, "42501")
def _(s: Stage) -> None:
    functions = s.db.rows(
        "select p.oid::regprocedure::text, n.nspname || '.' || p.proname, proargtypes::regtype[]::text[], nspname = 'mill',"
        " has_function_privilege(%s, p.oid, 'execute')"
        " from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname in ('mill', 'api')",
        s.names["me"],
    )  # fmt: skip
    mine = {name for _, name, _, _, allowed in functions if allowed}
    assert mine == {f"api.{f}" for f in (
        "hello_v1", "me_v1", "drained_v1", "claim_v1", "heartbeat_v1", "release_v1", "fail_v1",
        "urls_v1", "submit_download_v1", "submit_download_v1", "complete_v1", "opt_outs_v1",
        "submit_opt_outs_v1",
    )}  # fmt: skip
    for _, name, types, of_mill, _ in functions:
        if name not in mine:
            # a type of mill cannot even be named: bare nulls there
            arguments = ", ".join("null" if of_mill else f"null::{t}" for t in types)
            refused_each(
                s.eve, "42501", f"select {name}({arguments})", f"select * from {name}({arguments})"
            )


LEASE_CALLS = (
    "select api.heartbeat_v1({})", "select api.release_v1({})", "select api.fail_v1({}, 'x', false)",
    "select api.complete_v1({})", "select * from api.urls_v1({})", "select * from api.opt_outs_v1({})",
    "select api.submit_opt_outs_v1({}, '{{http://a}}', '{{robots.txt}}', '{{200}}', '{{disallow: /}}', '{{1}}')",
    "select api.submit_download_v1({}, 0, '{{0}}', '{{1}}', '{{200}}', '{{1}}', '{{1}}', '{{1}}', '{{null}}', '{{null}}',"
    " '{{1}}', '{{}}', '{{}}')",
    "select api.submit_download_v1({}, 0, '{{0}}', '{{1}}', '{{200}}', '{{1}}', '{{1}}', '{{1}}', '{{null}}', '{{null}}',"
    " '{{1}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')",
)  # fmt: skip


@case("another worker's lease, an ended one, or a guessed number", REFUSED, "PM001")
def _(s: Stage) -> None:
    s.batches(4)
    ended = s.claim(s.eve, s.eve_instance)
    s.eve.execute("select api.release_v1(%s)", (ended,))
    first, mine, last = (
        s.claim(s.bob, s.bob_instance), s.claim(s.eve, s.eve_instance), s.claim(s.bob, s.bob_instance),
    )  # fmt: skip
    assert (first, last) == (mine - 1, mine + 1)
    before = s.db.rows("select * from mill.lease order by lease_id")
    for number in (
        first, last, ended, -mine, 0, mine + 2**40, mine - 2**40, mine + 10**6, 2**63 - 1, -(2**63), "null",
    ):  # fmt: skip
        refused_each(
            s.eve,
            "PM001",
            *(call.format(f"'{number}'" if number != "null" else "null") for call in LEASE_CALLS),
        )
    # nor does the refusal tell a number that exists from one that does not
    said = set()
    for number in (first, mine + 10**6):
        with pytest.raises(psycopg.Error) as refused:
            s.eve.execute("select api.heartbeat_v1(%s)", (number,))
        said.add((refused.value.diag.message_primary or "").replace(str(number), "N"))
    assert len(said) == 1
    assert s.db.rows("select * from mill.lease order by lease_id") == before
    assert s.db.value("select count(*) from mill.task where state = 'leased'") == 3


@case("another worker's instance, or none", REFUSED, "PM003")
def _(s: Stage) -> None:
    s.batches()
    for number in (s.bob_instance, 0, -1, 2**62, "null"):
        assert state_of(s.eve, f"select api.claim_v1({number})") == "PM003"
    assert s.db.value("select count(*) from mill.lease where ended_at is null") == 0


@case("completing what was not submitted", REFUSED, "PM005")
def _(s: Stage) -> None:
    queue, lease = s.lease()
    queue.submit_download(lease, 0, outcomes(range(7)))
    assert state_of(s.eve, "select api.complete_v1(%s)", lease) == "PM005"


@case(
    "malformed submissions: wrong lengths, NULL, NaN, two dimensions, positions that are not its own",
    REFUSED,
    "PM003",
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    good = outcomes([0, 1], Outcome.TIMEOUT)
    ill: list[Outcomes] = [outcomes([n], Outcome.TIMEOUT) for n in (-1, 8, 2**31 - 1, -(2**31))]
    ill += [outcomes(p, Outcome.TIMEOUT) for p in ([], [0, 0], [0, None], [0, 8])]  # type: ignore[list-item]
    ill += [
        replace(good, **{column: None})
        for column in ("positions", "outcome", "http_status", "md5", "refused_positions", "age")
    ]
    ill += [
        replace(good, **{column: []})
        for column in (
            "outcome",
            "http_status",
            "sizes",
            "width",
            "height",
            "md5",
            "sha256",
            "dhash",
        )
    ]
    ill += [
        replace(good, positions=[[0], [1]]), replace(good, outcome=[99, 99]), replace(good, outcome=[None, 1]),
        replace(good, http_status=[99, 200]), replace(good, sizes=[-1, 1]), replace(good, width=[0, 1]),
        replace(good, sha256=[b"x", None]), replace(good, outcome=[0, 1]),
        replace(outcomes([0]), thumbnails=[b""]), replace(outcomes([0]), thumbnails=[b"x" * 131_073]),
        replace(outcomes([0]), thumbnail_positions=[1]), replace(outcomes([0]), thumbnails=[]),
        *(replace(outcomes([0], Outcome.OPTED_OUT), refused_positions=[0], signal=["x"], value=["x"], source=["x"], age=[age])
          for age in (math.nan, math.inf, -math.inf, -1.0)),
    ]  # fmt: skip
    for wrong in ill:
        with pytest.raises(Malformed):
            queue.submit_download(lease, 0, wrong)
    with pytest.raises(Malformed):
        queue.submit_download(lease, None, good)  # type: ignore[arg-type]
    hosts = OptOuts(["http://secret-host-1.example"], ["robots.txt"], [200], ["x"], [1.0])
    for change in (
        {"age": [math.nan]}, {"age": [math.inf]}, {"age": [-1.0]}, {"rules": [None]}, {"rules": []}, {"file": ["passwd"]},
        {"origin": []}, {"rules": ["x" * 65_537]},
    ):  # fmt: skip
        with pytest.raises(Malformed):
            queue.submit_opt_outs(lease, replace(hosts, **change))  # type: ignore[arg-type]
    assert (
        s.db.value(
            "select count(*) from mill.submission where task_id in (select task_id from mill.lease where lease_id = %s)",
            lease,
        )
        == 0
    )
    assert s.db.value("select count(*) from mill.host_file") == 0


@case("submissions of 1,000,000 rows", REFUSED, "PM003")
def _(s: Stage) -> None:
    _, lease = s.lease()
    for values in ("g - 1", "0"):
        array = f"array(select {values} from generate_series(1, 1000000) g)"
        columns = ", ".join(
            f"array_fill(1::{t}, array[1000000])"
            for t in ("smallint", "smallint", "int", "int", "int")
        )
        call = f"select api.submit_download_v1({lease}, 0, {array}::int[], {columns}, array_fill(null::uuid, array[1000000])," \
               " array_fill(null::bytea, array[1000000]), array_fill(1::bigint, array[1000000]), '{}', '{}')"  # fmt: skip
        assert state_of(s.eve, call) == "PM003"
    many = ", ".join(
        f"array_fill({v}, array[1000000])"
        for v in ("'http://a'::text", "'ai.txt'::text", "200::smallint", "''::text", "1::real")
    )
    assert state_of(s.eve, f"select api.submit_opt_outs_v1({lease}, {many})") == "PM003"
    assert s.db.value("select count(*) from mill.submission_download") == 0


@case(
    "arguments of 200 MB",
    BOUNDED,
    "what is kept: 100 characters of a version, 1,000 of a reason, nothing of the rest",
)
def _(s: Stage) -> None:
    _, lease = s.lease()
    long = "repeat('0123456789', 20000000)"
    instance = value(s.eve, "select instance_id from api.hello_v1(%s, 1)", "x" * 200_000_000)
    assert (
        s.db.value("select length(version) from mill.instance where instance_id = %s", instance)
        == 100
    )
    thumbnail = f"array[convert_to({long}, 'UTF8')]"
    submit = f"select api.submit_download_v1({lease}, 0, '{{0}}', '{{0}}', '{{200}}', '{{1}}', '{{1}}', '{{1}}'," \
             f" array[gen_random_uuid()], array[decode(repeat('00', 32), 'hex')], '{{1}}', '{{0}}', {thumbnail})"  # fmt: skip
    assert state_of(s.eve, submit) == "PM003"
    rules = f"select api.submit_opt_outs_v1({lease}, '{{http://secret-host-1.example}}', '{{ai.txt}}', '{{200}}', array[{long}], '{{1}}')"
    assert state_of(s.eve, rules) == "PM003"
    s.eve.execute("select api.fail_v1(%s, repeat('0123456789', 20000000), true)", (lease,))
    assert s.db.value("select max(length(reason)) from mill.task") == 1000


@case("1,000 tiny parts", BOUNDED, "the positions of its batch: one submission each at the most")
def _(s: Stage) -> None:
    s.admin.execute("update mill.setting set batch_size = 1000")
    s.batches(size=1000)
    lease = s.claim(s.eve, s.eve_instance)
    call = (
        f"select count(api.submit_download_v1({lease}, n, array[n], '{{{int(Outcome.TIMEOUT)}}}', '{{null}}', '{{null}}', '{{null}}', '{{null}}',"
        " '{null}', '{null}', '{null}', '{}', '{}')) from generate_series(%s::int, %s::int) n"
    )
    assert value(s.eve, call, 0, 999) == 1000
    assert state_of(s.eve, call, 1000, 1000) == "PM003"
    assert value(s.eve, call, 0, 999) == 1000  # the same parts again: the same submissions
    assert s.db.value("select count(*) from mill.submission where lease_id = %s", lease) == 1000


@case(
    "claiming all tasks",
    BOUNDED,
    "leases_per_worker (64) and, whatever the heartbeats, lease_max_seconds (6 hours)",
)
def _(s: Stage) -> None:
    assert s.db.rows("select leases_per_worker, lease_max_seconds from mill.setting") == [
        (64, 21600)
    ]
    s.admin.execute("update mill.setting set leases_per_worker = 3, lease_max_seconds = 60")
    s.batches(4)
    for _ in range(3):
        lease = s.claim(s.eve, s.eve_instance)
    assert state_of(s.eve, "select api.claim_v1(%s)", s.eve_instance) == "PM003"
    other = s.register(s.session(s.eve_dsn))  # another process of the same login
    assert state_of(s.eve, "select api.claim_v1(%s)", other) == "PM003"
    assert value(s.eve, "select api.heartbeat_v1(%s)", lease) <= 60
    assert s.claim(s.bob, s.bob_instance)


@case(
    "settings that turn the planner round, so that a claim takes more than one task",
    BOUNDED,
    "the claim's own query: one task a call",
)
def _(s: Stage) -> None:
    s.batches(4)
    for setting in (
        "enable_seqscan", "enable_indexscan", "enable_bitmapscan", "enable_sort", "enable_hashagg", "enable_material",
        "enable_nestloop", "enable_hashjoin", "transform_null_equals",
    ):  # fmt: skip
        s.eve.execute(f"set {setting} = {'on' if setting.startswith('transform') else 'off'}")
    s.eve.execute("set plan_cache_mode = force_generic_plan")
    s.eve.execute("set default_transaction_isolation = serializable")
    s.claim(s.eve, s.eve_instance)
    assert s.db.value("select count(*) from mill.task where state = 'leased'") == 1


@case(
    "what hosts allow, invented",
    BOUNDED,
    "its own batches, until an admin proves the worker; one row a host and file",
)
def _(s: Stage) -> None:
    s.batches(2)
    s.admin.execute("update mill.pair set url = 'http://same.example/' || n")
    mine, bobs = s.claim(s.eve, s.eve_instance), s.claim(s.bob, s.bob_instance)
    lie = OptOuts(["http://same.example"], ["robots.txt"], [200], ["disallow: /"], [0.0])
    for _ in range(20):
        OnSession(s.eve).submit_opt_outs(mine, lie)
    assert s.db.value("select count(*) from mill.host_file") == 1
    assert OnSession(s.bob).opt_outs(bobs) == []


@case(
    "a search path of its own",
    BOUNDED,
    "the functions' own search_path, and nowhere to put a look-alike",
)
def _(s: Stage) -> None:
    s.batches()
    s.eve.execute("set search_path = pg_temp, mill, report, public, api")
    refused_each(
        s.eve,
        "42P01 42501",
        "select * from task",
        "select * from mill.task",
        "select * from worker",
    )
    refused_each(s.eve, "42883 42501", "select me(null)", "select refuse('x', 'y')")
    assert s.claim(s.eve, s.eve_instance)
    assert s.db.rows(
        "select p.oid::regprocedure from pg_proc p where pronamespace = 'api'::regnamespace"
        " and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)"
    ) == []  # fmt: skip


@case(
    "GRANT, DROP OWNED, VACUUM, CLUSTER of what is not its own",
    BOUNDED,
    "nothing is changed: a warning",
)
def _(s: Stage) -> None:
    rights = (
        "select array[(select array_agg(proacl::text order by oid) from pg_proc)::text, (select array_agg(relacl::text order by oid) from pg_class)::text,"
        " (select array_agg(nspacl::text order by oid) from pg_namespace)::text, (select array_agg(datacl::text order by oid) from pg_database)::text,"
        " (select array_agg(m::text order by m.oid) from pg_auth_members m)::text]"
    )
    vacuums = "select sum(vacuum_count) from pg_stat_all_tables"
    before, vacuumed = s.db.value(rights), s.db.value(vacuums)
    for statement in (
        "drop owned by {me}",
        "reassign owned by {me} to {me}",
        "grant execute on function api.urls_v1 to public",
        "grant connect, temporary on database {db} to public",
        "set role {db}_download",  # its own group: that adds no right
        "drop owned by {db}_download",
        "revoke all on function api.urls_v1 from {db}_download",
        "grant execute on function api.urls_v1 to public",
        "vacuum",
        "cluster",
        "vacuum pg_catalog.pg_class",
    ):
        s.eve.execute(cast(LiteralString, statement.format(**s.names)))
    assert s.db.value(rights) == before
    assert s.db.value(vacuums) == vacuumed


@case(
    "others' queries in pg_stat_activity",
    BOUNDED,
    "only the login and the application's name of a session are seen",
)
def _(s: Stage) -> None:
    s.bob.execute("set application_name = 'bobs'")
    s.bob.execute("select 'bob-said-this'")
    seen = s.eve.execute(
        "select usename, application_name, client_addr, client_port, backend_start, xact_start, state, query"
        " from pg_stat_activity where pid = %s", (s.bob.info.backend_pid,),
    ).fetchall()  # fmt: skip
    assert seen == [
        (s.names["other"], "bobs", None, None, None, None, None, "<insufficient privilege>")
    ]
    s.admin.execute("select 'the-admin-said-this'")
    assert "said-this" not in str(s.eve.execute("select * from pg_stat_activity").fetchall())


@case(
    "URLs and display names in the catalogs",
    BOUNDED,
    "none is in any relation of pg_catalog and information_schema that it can read",
)
def _(s: Stage) -> None:
    s.batches(2)
    s.claim(s.bob, s.bob_instance)
    s.admin.execute("analyze")
    needles = "secret-host|volunteer|bobs-secret"
    assert (
        s.db.value("select count(*) from pg_stats t where t::text ~ %s", needles) > 0
    )  # the admin sees them
    readable = 0
    for schema, relation in s.db.rows(
        "select nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace"
        " where nspname in ('pg_catalog', 'information_schema') and relkind in ('r', 'v')"
    ):  # fmt: skip
        try:
            rows = s.eve.execute(
                cast(LiteralString, f"select count(*) from {schema}.{relation} t where t::text ~ %s"), (needles,)
            ).fetchone()  # fmt: skip
        except psycopg.Error as error:
            assert error.sqlstate in ("42501", "55000"), (relation, error)
            continue
        readable += 1
        assert rows == (0,), relation
    assert readable > 100
    assert s.eve.execute(
        "select count(*) from pg_stats where schemaname in ('mill', 'inbox')"
    ).fetchone() == (0,)


@case("logins, sizes, row counts, locks and the source of functions in the catalogs", OPEN)
def _(s: Stage) -> None:
    s.batches()
    s.admin.execute("analyze mill.pair")
    for query in (
        f"select from pg_roles where rolname = '{s.names['other']}'",
        f"select from pg_auth_members m where member = (select oid from pg_roles where rolname = '{s.names['other']}')",
        "select from pg_class where relname = 'pair_b000000' and reltuples = 8",
        "select from pg_class where relname = 'pair_b000000' and pg_total_relation_size(oid) > 8192",
        "select from pg_stat_user_tables where schemaname = 'mill' and relname = 'pair_b000000'",
        "select from pg_proc where proname = 'claim_v1' and prosrc like '%leases_per_worker%'",
        "select from pg_class where relname = 'task' and obj_description(oid) like '%queue%'",
        "select from pg_locks",
        "select where pg_database_size(current_database()) > 0",
    ):
        assert s.eve.execute(cast(LiteralString, query)).rowcount > 0, query
    # a role has no comment, so pg_shdescription says nothing of who is behind a login
    assert (
        s.db.value(
            "select count(*) from pg_shdescription where classoid = 'pg_authid'::regclass and objoid >= 16384"
        )
        == 0
    )


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


@case("a login that was disabled", REFUSED, "28000")
def _(s: Stage) -> None:
    s.admin.execute("select mill.disable_worker('eve-volunteer')")
    with pytest.raises(psycopg.OperationalError):
        s.eve.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        s.session(s.eve_dsn)


# ---- not defended -------------------------------------------------------------------------------


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


@case("hello_v1 10,000 times", BOUNDED, "one row more than it has claimed under, a connection")
def _(s: Stage) -> None:
    s.batches(2)
    rows = "select count(*) from mill.instance"
    before = s.db.value(rows)
    s.eve.execute("select api.hello_v1(g::text, 1) from generate_series(1, 10000) g")
    assert s.db.value(rows) == before
    s.claim(s.eve, s.eve_instance)
    assert s.register(s.eve) != s.eve_instance  # under which something was claimed
    s.eve.execute("select api.hello_v1(g::text, 1) from generate_series(1, 10000) g")
    assert s.db.value(rows) == before + 1
    # one that does not commit holds up nobody, and costs a row
    s.eve.execute("begin")
    s.register(s.eve)
    other = s.impatient(s.eve_dsn)
    for _ in range(3):
        s.register(other)
    assert s.db.value(rows) == before + 2
    assert s.claim(s.bob, s.bob_instance)


@case("false outcomes", BOUNDED, "samples are repeated by others, and who is wrong is stopped")
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    queue, lease = s.lease()
    lies = [hashlib.sha256(bytes([n])).digest() for n in range(8)]
    queue.submit_download(lease, 0, outcomes_of(range(8), lies))
    queue.complete(lease)
    assert len(s.db.accept_all()) == 1
    bob, check = OnSession(s.bob), s.claim(s.bob, s.bob_instance)
    bob.submit_download(check, 0, outcomes([n for n, _ in bob.urls(check)]))
    bob.complete(check)
    assert len(s.db.accept_all()) == 1
    s.db.queue("steward")[0].maintain("judge_checks")
    assert state_of(s.eve, f"select * from api.claim_v1({s.eve_instance})") == "PM002"
    assert s.db.value("select count(*) from mill.current_download") == 0


@case(
    "sitting on checks, failing them, or saying that all timed out, so that others stay unchecked",
    BOUNDED,
    "one check at a time, for half an hour at the most, and none for an hour after one that came to nothing",
)
def _(s: Stage) -> None:
    s.batches(3)
    for _ in range(3):
        s.db.download()
    s.admin.execute("update mill.worker set streak = 0 where name like '%volunteer'")
    s.admin.execute(
        "update mill.task set is_check = true, state = 'ready', positions = '{0,1,2,3,4}', attempt = 2, avoid_workers = '{}'"
        " where kind = 'download'"
    )
    held = s.claim(s.eve, s.eve_instance)
    claim = f"select count(*) from api.claim_v1({s.eve_instance})"
    assert value(s.eve, claim) == 0
    assert s.db.value(
        "select max(deadline - claimed_at) < interval '31 minutes' from mill.lease where ended_at is null"
    )
    s.eve.execute("select api.fail_v1(%s, 'x', false)", (held,))
    assert value(s.eve, claim) == 0
    assert s.db.value("select count(*) from mill.task where is_check and state = 'ready'") == 3
    assert s.claim(s.bob, s.bob_instance)


@case(
    "rolling back what it completed until it is drawn for no check",
    BOUNDED,
    "the draw: it comes out the same every time",
)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 11 where name = 'eve-volunteer'")
    queue, lease = s.lease()
    queue.submit_download(lease, 0, outcomes(range(8)))
    s.db.accept_all()
    drawn = set()
    inserted = "select n_tup_ins from pg_stat_xact_all_tables where relname = 'recheck'"
    for _ in range(100):
        s.eve.execute("begin")
        before = value(s.eve, inserted)  # of transactions before, which are summed up once a second
        queue.complete(lease)
        drawn.add(value(s.eve, inserted) - before)
        s.eve.execute("rollback")
    assert len(drawn) == 1


@case(
    "an open transaction over its own tasks, while it is judged",
    BOUNDED,
    "its own check: the steward goes on after a second, and its session is ended",
)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    s.batches(1)
    queue, lease = s.lease()
    queue.submit_download(
        lease, 0, outcomes_of(range(8), [hashlib.sha256(bytes([n])).digest() for n in range(8)])
    )
    queue.complete(lease)
    s.db.accept_all()
    other = s.claim(s.eve, s.eve_instance)
    s.db.download()
    s.eve.execute("begin")
    s.eve.execute("select api.release_v1(%s)", (other,))
    steward = s.db.queue("steward")[0]
    assert steward.maintain("judge_checks") == 0
    assert steward.maintain("judge_checks") == 1
    assert s.db.value("select stopped_because from mill.worker where name = 'eve-volunteer'")


@case("telling canaries from URLs by rolling back a submission of each", OPEN)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    s.admin.execute("update mill.setting set batch_size = 20, canaries_per_lease = 1")
    s.admin.execute("insert into mill.canary (url, by_admin) values ('http://c.example/', true)")
    s.db.extract([f"http://d.example/{n}.jpg" for n in range(20)], "canary.wat")
    s.db.close_batches()
    lease = s.claim(s.eve, s.eve_instance)
    queue = OnSession(s.eve)
    found = []
    for n, url in queue.urls(lease):
        s.eve.execute("begin")
        queue.submit_download(lease, n, outcomes([n], Outcome.TIMEOUT))
        if value(s.eve, "select rows_waiting from api.me_v1()") == 0:
            found.append(url)
        s.eve.execute("rollback")
    assert found == ["http://c.example/"]


@case(
    "a false thumbnail with a true hash",
    BOUNDED,
    "its scoring",
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    queue.submit_download(lease, 0, outcomes(range(8), Outcome.SUCCESS, b"another image"))
    queue.complete(lease)
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.current_download where outcome = 0") == 8
    # what a scorer says then; tests/integration/test_score_pipeline.py has that it does
    s.db.add_model()
    s.db.admin.execute("select mill.queue_scoring(0, 1::smallint, 1)")
    claim = s.db.claim("score", digest="d1")
    assert claim
    scorer, _ = s.db.queue("score")
    wrong = int(ScoreOutcome.WRONG_THUMBNAIL)
    scorer.copy_scores([(claim.lease_id, 0, n, wrong, None, None, None, 5) for n in range(8)])
    scorer.submit_score(claim.lease_id, 0, 8)
    s.db.accept_all()
    assert s.db.rows("select worker, thumbnails, wrong from report.wrong_thumbnail") == [
        ("eve-volunteer", 8, 8)
    ]
    # what an admin does then
    s.admin.execute("select mill.quarantine_worker('eve-volunteer', null, 'it lied')")
    assert s.db.value("select count(*) from mill.current_download") == 0
    assert (
        s.db.value("select count(*) from mill.task where kind = 'download' and state = 'ready'")
        == 1
    )


@case(
    "parking every download task, one after another",
    BOUNDED,
    "unfinished_per_hour (200): then it claims nothing for an hour",
)
def _(s: Stage) -> None:
    assert s.db.value("select unfinished_per_hour from mill.setting") == 200
    s.admin.execute("update mill.setting set unfinished_per_hour = 6, leases_per_worker = 6")
    s.batches(10)
    fail = "select api.fail_v1(%s, 'x', false)"
    for _ in range(3):
        s.eve.execute(fail, (s.claim(s.eve, s.eve_instance),))
    # nor does it help to lose a lease, to give one back, or to have claimed before
    s.claim(s.eve, s.eve_instance)
    s.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    assert s.db.queue("steward")[0].maintain("expire_leases") == 1
    held = [s.claim(s.eve, s.eve_instance) for _ in range(2)]
    s.eve.execute("select api.release_v1(%s)", (s.claim(s.eve, s.eve_instance),))
    s.eve.execute(fail, (held[0],))
    for instance in (s.eve_instance, s.register(s.session(s.eve_dsn))):
        with pytest.raises(
            psycopg.Error, match="6 leases of this login were failed, lost or"
        ) as refused:
            s.claim(s.eve, instance)
        assert refused.value.sqlstate == "PM003"
    s.eve.execute(fail, (held[1],))  # what it holds it may still hand back
    assert s.db.rows(
        "select state, count(*) from mill.task where kind = 'download' group by 1 order by 1"
    ) == [("parked", 5), ("ready", 5)]
    assert s.claim(s.bob, s.bob_instance)
    s.admin.execute("update mill.lease set ended_at = ended_at - interval '1 hour'")
    assert s.claim(s.eve, s.eve_instance)


@case(
    "filling the ring of thumbnails with parked tasks, so that nobody can claim",
    BOUNDED,
    "the steward's next round",
)
def _(s: Stage) -> None:
    s.db.add_model()
    # 8 slots: 8 tasks here, 512 with 64 a slot
    s.admin.execute("update mill.setting set batches_per_slot = 1")
    steward = s.db.queue("steward")[0]
    ready = "select count(*) from mill.task where kind = 'download' and state = 'ready'"
    s.batches(18)
    for submits in (False, True):
        for _ in range(8):
            lease = s.claim(s.eve, s.eve_instance)
            if submits:
                OnSession(s.eve).submit_download(lease, 0, outcomes([0]))
            s.eve.execute("select api.fail_v1(%s, 'x', false)", (lease,))
        s.db.accept_all()
        assert s.db.value(ready) == (2 if submits else 10)
        assert s.bob.execute("select * from api.claim_v1(%s)", (s.bob_instance,)).fetchall() == []
        steward.maintain("empty_slots")
        lease = s.claim(s.bob, s.bob_instance)
        s.bob.execute("select api.release_v1(%s)", (lease,))
        s.admin.execute("update mill.task set slot = null where state = 'ready'")
        s.admin.execute("update mill.thumbnail_slot set state = 'empty', batches = 0")


@case("an open transaction after claim_v1", BOUNDED, "one slot of the ring: others get another")
def _(s: Stage) -> None:
    s.batches(2)
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin")
    s.claim(s.eve, s.eve_instance)
    assert s.claim(s.impatient(s.bob_dsn), s.bob_instance) > 0
    s.eve.execute("rollback")


@case(
    "an open transaction that holds its own rows, against `pairmill worker disable`",
    BOUNDED,
    "its sessions are ended first",
)
def _(s: Stage) -> None:
    s.batches()
    admin = s.impatient(s.db.dsn)
    password = s.session(s.eve_dsn)
    password.execute("begin")
    password.execute(cast(LiteralString, f"alter role {s.names['me']} password 'x'"))
    assert state_of(admin, f"alter role {s.names['me']} nologin") == BLOCKED
    s.eve.execute("begin")
    s.claim(s.eve, s.eve_instance)
    assert value(admin, "select mill.disable_worker('eve-volunteer')") is True


@case(
    "an open transaction after heartbeat_v1, once the lease is late",
    BOUNDED,
    "its own lease: the steward passes over it",
)
def _(s: Stage) -> None:
    _, lease = s.lease()
    beat, soon = "", 0.02
    while beat != "00000":  # on a machine that is busy, a little later
        s.admin.execute(
            "update mill.lease set expires_at = clock_timestamp() + make_interval(secs => %s) where lease_id = %s",
            (soon, lease),
        )
        s.eve.execute("begin")
        beat = state_of(s.eve, f"select api.heartbeat_v1({lease})")  # locks the lease, not the task
        if beat != "00000":
            s.eve.execute("rollback")
        soon *= 2
    # others see what was committed, which is late when those 20 ms are over: some statements' time
    while not s.db.value(
        "select expires_at < clock_timestamp() from mill.lease where lease_id = %s", lease
    ):
        pass
    steward = s.impatient(s.db.login("steward", "impatient"))
    assert value(steward, "select api.expire_leases_v1()") == 0
    s.eve.execute("rollback")
    assert value(steward, "select api.expire_leases_v1()") == 1


@case(
    "an open transaction after urls_v1: a migration waits",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    s.eve.execute("begin")
    queue.urls(lease)
    admin = s.impatient(s.db.dsn)
    for table in ("task", "pair", "download"):
        admin.execute("begin")
        assert state_of(admin, f"lock table mill.{table} in access exclusive mode") == BLOCKED
        admin.execute("rollback")
    s.watchdog()
    admin.execute("begin")
    assert state_of(admin, "lock table mill.task in access exclusive mode") == "00000"
    admin.execute("rollback")


@case(
    "an open transaction over a task with a submission",
    BOUNDED,
    "its own task: what others submitted is accepted",
)
def _(s: Stage) -> None:
    s.batches(2)
    eves, lease = OnSession(s.eve), s.claim(s.eve, s.eve_instance)
    bobs, theirs = OnSession(s.bob), s.claim(s.bob, s.bob_instance)
    eves.submit_download(lease, 0, outcomes([0], Outcome.TIMEOUT))
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin")
    eves.urls(lease)  # locks the task
    bobs.submit_download(theirs, 0, outcomes(range(8), Outcome.TIMEOUT))
    bobs.complete(theirs)
    steward = s.impatient(s.db.login("steward", "impatient"))
    assert steward.execute("select row_count from api.accept_next_v1()").fetchall() == [(8,)]
    assert steward.execute("select * from api.accept_next_v1()").fetchall() == []
    s.eve.execute("rollback")
    assert len(s.db.accept_all()) == 1


@case(
    "an open transaction over a task: its lease does not end",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    s.eve.execute("begin")
    queue.urls(lease)
    # as if two minutes had passed: its lease's row is not locked, its task's is
    s.admin.execute(
        "update mill.lease set expires_at = now() - interval '1 second' where lease_id = %s",
        (lease,),
    )
    steward = s.db.queue("steward")[0]
    assert steward.maintain("expire_leases") == 0
    s.watchdog()
    assert steward.maintain("expire_leases") == 1


@case(
    "an open transaction: no row that died since can be vacuumed away",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin isolation level repeatable read")
    s.eve.execute("select 1")
    s.admin.execute("update mill.setting set retry_seconds = 31")
    horizon = "select age(backend_xmin) from pg_stat_activity where pid = %s"
    before = s.db.value(horizon, s.eve.info.backend_pid)
    s.admin.execute("update mill.setting set retry_seconds = 30")
    assert s.db.value(horizon, s.eve.info.backend_pid) > before
    s.watchdog()
    assert s.db.value(horizon, s.eve.info.backend_pid) is None


@case("an open transaction that is never idle for long", BOUNDED, BUSY)
def _(s: Stage) -> None:
    s.eve.execute("begin isolation level repeatable read")
    s.eve.execute("select 1")
    s.watchdog(600, 0)


@case("a COPY of its own result that it does not read", BOUNDED, BUSY)
def _(s: Stage) -> None:
    # more than the sockets hold: the server waits for the reader, and says that it is active
    rows = "copy (select repeat('x', 10000) from generate_series(1, 10000)) to stdout"
    with pytest.raises(psycopg.OperationalError), s.eve.cursor() as c, c.copy(rows) as copy:
        s.watchdog(600, 0)
        for _ in copy:
            pass


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.attempt])
def test_attempt(stage: Stage, name: str) -> None:
    attempt = CASES[name].attempt
    assert attempt is not None
    attempt(stage)


# ---- what docs/security.md says -----------------------------------------------------------------


def test_the_stewards_thread_ends_it_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no patience instead of the 15 seconds, else the real thing."""
    impatient = "select api.watchdog_v1(0, 600)"
    monkeypatch.setattr(StewardQueue, "watchdog", lambda self: self._one(impatient, ())[0])
    said: list[str] = []
    line = SimpleNamespace(say=said.append, metrics=Metrics("steward"))
    dsn = stage.db.login("steward", "watchful")
    watchdog = Watchdog(dsn, cast(Progress, line), every=0.1)
    try:
        stage.eve.execute("begin")
        stage.eve.execute("select 1")
        watchdog.start()
        wait_until(lambda: bool(said), "the watchdog")
        assert said[0] == "ended 1 sessions of workers with a transaction left open"
        with pytest.raises(psycopg.OperationalError):
            stage.eve.execute("select 1")
    finally:
        watchdog.stop()
        watchdog.join(30)


def test_a_watchdog_without_the_right_says_so_once(db: Database) -> None:
    said: list[str] = []
    line = SimpleNamespace(say=said.append, metrics=Metrics("steward"))
    watchdog = Watchdog(db.login("steward"), cast(Progress, line), every=0.02)
    watchdog.start()
    wait_until(lambda: bool(said), "the watchdog")
    watchdog.stop()
    watchdog.join(30)
    assert ["pairmill db secure" in words for words in said] == [True]


def test_the_page_shows_these_cases() -> None:
    CASES.check("What was tried")

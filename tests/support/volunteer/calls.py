"""Calls that are not a volunteer's to make, and what it sees of others."""

import math
from dataclasses import replace
from typing import LiteralString, cast

import psycopg
import pytest

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import OptOuts, Outcomes
from pairmill.workers.errors import Malformed
from support.database import outcomes
from support.hostile_login import (
    BOUNDED,
    OPEN,
    REFUSED,
    Cases,
    OnSession,
    Stage,
    refused_each,
    state_of,
    value,
)

CASES = Cases()
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
        "register_v1", "me_v1", "drained_v1", "claim_v1", "heartbeat_v1", "release_v1", "fail_v1",
        "urls_v1", "submit_download_v1", "complete_v1", "opt_outs_v1",
        "submit_opt_outs_v1", "show_name_v1",
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
    " '{{null}}', '{{1}}', '{{null}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')",
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
            "sha1",
            "sha256",
            "dhash",
            "pdq",
        )
    ]
    ill += [
        replace(good, positions=[[0], [1]]), replace(good, outcome=[99, 99]), replace(good, outcome=[None, 1]),
        replace(good, http_status=[99, 200]), replace(good, sizes=[-1, 1]), replace(good, width=[0, 1]),
        replace(good, sha1=[b"x", None]), replace(good, sha256=[b"x", None]), replace(good, pdq=[b"x", None]),
        replace(good, outcome=[0, 1]),
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
               " array_fill(null::bytea, array[1000000]), array_fill(null::bytea, array[1000000]), array_fill(1::bigint, array[1000000])," \
               " array_fill(null::bytea, array[1000000]), '{}', '{}', '{}', '{}', '{}', '{}', '{}')"  # fmt: skip
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
    "100 characters of a version are kept, 1,000 of a reason, nothing of the rest",
)
def _(s: Stage) -> None:
    _, lease = s.lease()
    long = "repeat('0123456789', 20000000)"
    instance = value(s.eve, "select instance_id from api.register_v1(%s, 1)", "x" * 200_000_000)
    assert (
        s.db.value("select length(version) from mill.instance where instance_id = %s", instance)
        == 100
    )
    thumbnail = f"array[convert_to({long}, 'UTF8')]"
    submit = f"select api.submit_download_v1({lease}, 0, '{{0}}', '{{0}}', '{{200}}', '{{1}}', '{{1}}', '{{1}}'," \
             f" array[gen_random_uuid()], array[decode(repeat('00', 20), 'hex')], array[decode(repeat('00', 32), 'hex')], '{{1}}', '{{null}}', '{{0}}', {thumbnail}, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"  # fmt: skip
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
        " '{null}', '{null}', '{null}', '{null}', '{null}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')) from generate_series(%s::int, %s::int) n"
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

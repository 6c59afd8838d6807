"""What a login may do: its kind's functions, and nothing else."""

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pairmill.schema.outcomes import DropReason, Outcome, ScoreOutcome
from pairmill.schema.scripts import sql
from support.database import Database, new_database

KINDS = ("extract", "download", "score", "steward")


def tables(db: Database) -> list[str]:
    return [f"{s}.{t}" for s, t in db.rows(
        "select schemaname, tablename from pg_tables where schemaname in ('mill', 'inbox')"
        " union all select schemaname, viewname from pg_views where schemaname in ('mill', 'report')"
    )]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_worker_reads_and_writes_no_table(db: Database, kind: str) -> None:
    inbox = {"extract": ["inbox.pair", "inbox.page"], "score": ["inbox.score", "inbox.tag"]}.get(
        kind, []
    )
    refusal = (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)
    with psycopg.connect(db.login(kind), autocommit=True) as worker:
        for table in tables(db):
            for statement in (
                f"select * from {table}",
                f"delete from {table}",
                f"update {table} set tableoid = 0",
                f"truncate {table}",
                f"copy {table} to stdout",
            ):
                with pytest.raises(refusal):
                    worker.execute(statement)
            if table not in inbox:
                with pytest.raises(refusal):
                    worker.execute(f"insert into {table} default values")


@pytest.mark.parametrize("kind", KINDS)
def test_worker_calls_its_own_functions_and_no_others(db: Database, kind: str) -> None:
    login = db.login(kind)
    role = psycopg.conninfo.conninfo_to_dict(login)["user"]
    allowed = {
        name for (name,) in db.rows(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = pronamespace"
            " where nspname in ('mill', 'api') and has_function_privilege(%s, p.oid, 'execute')", role,
        )
    }  # fmt: skip
    common = {"register_v1", "me_v1", "drained_v1", "show_name_v1"}
    claiming = common | {"claim_v1", "heartbeat_v1", "release_v1", "fail_v1"}
    assert allowed == {
        "extract": claiming | {"submit_extract_v1", "probe_v1"},
        "download": claiming | {
            "urls_v1", "submit_download_v1", "complete_v1", "opt_outs_v1",
            "submit_opt_outs_v1",
        },
        "score": claiming | {
            "thumbnails_v1", "submit_score_v1", "complete_v1",
            "taggers_v1", "weights_v1", "embeddings_v1",
        },
        "steward": common | {
            "accept_next_v1", "accept_filtered_v1", "staged_keys_v1", "known_keys_v1",
            "merge_number_v1", "close_batches_v1", "judge_replications_v1", "sweep_gold_questions_v1", "watchdog_v1", "expire_leases_v1", "sweep_inbox_v1",
            "sweep_host_files_v1",
            "empty_slots_v1", "ensure_partitions_v1", "metrics_v1",
        },
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_login_may_ask_why_and_nothing_else(db: Database, kind: str) -> None:
    """Would catch: a grant of its group, or of another admin, that stays."""
    login = db.login(kind, "eve")
    role = psycopg.conninfo.conninfo_to_dict(login)["user"]
    assert db.value("select mill.disable_worker('eve')")
    groups = "select g.rolname from pg_auth_members join pg_roles g on g.oid = roleid where member = %s::regrole"
    assert db.rows(groups, role) == [(db.group("disabled"),)]
    with psycopg.connect(login, autocommit=True) as eve:
        for table in (*tables(db), "inbox.pair"):
            for statement in (f"select * from {table}", f"insert into {table} default values"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    eve.execute(statement)
        for group in (kind, "owner"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                eve.execute(f"set role {db.group(group)}")
        assert eve.execute("select state from api.me_v1()").fetchone() == ("disabled",)
    called = db.rows(
        "select p.proname from pg_proc p where pronamespace in ('mill'::regnamespace, 'api'::regnamespace)"
        " and has_function_privilege(%s, p.oid, 'execute') order by 1", role,
    )  # fmt: skip
    assert called == [("me_v1",), ("register_v1",)]
    assert db.value("select mill.enable_worker('eve')")
    assert db.rows(groups, role) == [(db.group(kind),)]
    with psycopg.connect(login, autocommit=True) as eve:
        assert eve.execute("select state from api.me_v1()").fetchone() == ("active",)


@pytest.mark.parametrize(
    "right",
    ["grant pg_read_all_data to {}", "grant select on mill.worker to {}", "alter role {} createdb"],
)
def test_disabled_login_with_rights_of_its_own_is_closed(db: Database, right: str) -> None:
    """Would catch: a right beside the group's that outlives `worker disable`."""
    login = db.login("download", "eve")
    role = psycopg.conninfo.conninfo_to_dict(login)["user"]
    db.admin.execute(right.format(role))
    db.admin.execute("select mill.disable_worker('eve')")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(login)
    db.admin.execute(f"drop owned by {role}")


def test_inbox_takes_rows_of_its_own_kind_and_no_forged_sender(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    with psycopg.connect(db.queue("extract")[0]._dsn, autocommit=True) as worker:
        columns = "lease_id, ordinal, url_key, url, text, language_probability"
        values = f"{claim.lease_id}, 0, md5('http://a/')::uuid, 'http://a/', 'text', 0"
        worker.execute(f"insert into inbox.pair ({columns}) values ({values})")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute(f"insert into inbox.pair ({columns}, worker) values ({values}, 'ada')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute(
                "insert into inbox.score (lease_id, part, n, outcome) values (1, 0, 0, 0)"
            )
        assert db.value("select worker from inbox.pair") == worker.info.user


def test_researcher_reads_reports_and_writes_nothing(db: Database) -> None:
    db.extract(["http://a.example/1.jpg"])
    db.admin.execute(
        "select mill.add_researcher('r_' || left(current_database(), 20), 'Ada', 'secret')"
    )
    login = make_conninfo(db.dsn, user="r_" + db.admin.info.dbname[:20], password="secret")
    with psycopg.connect(login, autocommit=True) as researcher:
        for (view,) in db.rows("select viewname from pg_views where schemaname = 'report'"):
            researcher.execute(f"select * from report.{view} limit 1").fetchall()
        for statement in (
            "select * from mill.worker",
            "select * from inbox.pair",
            "select api.register_v1('x', 1)",
            "create table report.t (a int)",
            "delete from report.outcome",
        ):
            with pytest.raises(psycopg.errors.Error) as refused:
                researcher.execute(statement)
            assert refused.value.sqlstate in ("42501", "25006")


def test_nothing_of_ours_is_open_to_everybody(db: Database) -> None:
    assert (
        db.rows(
            "select p.oid::regprocedure from pg_proc p where pronamespace in ('mill'::regnamespace, 'api'::regnamespace)"
            " and has_function_privilege('public', p.oid, 'execute')"
        )
        == []
    )
    assert db.rows(
        "select nspname from pg_namespace where nspname in ('mill', 'api', 'report', 'inbox')"
        " and has_schema_privilege('public', oid, 'usage')"
    ) == []  # fmt: skip


def test_functions_with_the_owners_rights_pin_their_search_path(db: Database) -> None:
    definers = db.rows(
        "select proname, proconfig from pg_proc where prosecdef and pronamespace = 'api'::regnamespace"
    )
    assert len(definers) == db.value(
        "select count(*) from pg_proc where pronamespace = 'api'::regnamespace"
    )
    for name, config in definers:
        assert "search_path=pg_catalog, pg_temp" in (config or []), name
    owners = db.rows("select distinct r.rolname, r.rolsuper from pg_proc p join pg_roles r on r.oid = proowner"
                     " where pronamespace in ('mill'::regnamespace, 'api'::regnamespace)")  # fmt: skip
    assert owners == [(db.group("owner"), False)]


def test_everything_has_a_comment(db: Database) -> None:
    ours = "relnamespace in ('mill'::regnamespace, 'inbox'::regnamespace, 'report'::regnamespace)"
    assert (
        db.rows(
            f"select oid::regclass from pg_class where {ours} and relkind in ('r', 'p', 'v', 'S')"
            " and obj_description(oid, 'pg_class') is null"
            # sequences behind identity columns have no comment of their own
            " and not (relkind = 'S' and exists (select from pg_depend where objid = pg_class.oid and deptype = 'i'))"
        )
        == []
    )
    assert (
        db.rows(
            "select c.oid::regclass, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid"
            f" where {ours} and relkind in ('r', 'p', 'v') and attnum > 0 and not attisdropped and not relispartition"
            " and relname not like 'current%%' and col_description(c.oid, attnum) is null"
        )
        == []
    )
    assert db.rows(
        "select oid::regprocedure from pg_proc where pronamespace in ('mill'::regnamespace, 'api'::regnamespace)"
        " and obj_description(oid, 'pg_proc') is null"
    ) == []  # fmt: skip


def test_closed_lists_are_the_codes(db: Database) -> None:
    assert dict(db.rows("select code, name from mill.outcome")) == {
        o.value: o.name.lower() for o in Outcome
    }
    assert dict(db.rows("select code, name from mill.score_outcome")) == {
        o.value: o.name.lower() for o in ScoreOutcome
    }
    assert {name for (name,) in db.rows("select name from mill.drop_reason")} == {
        r.value for r in DropReason
    }


def test_a_secured_database_takes_more_away_and_workers_still_work(db: Database) -> None:
    missing = len(db.rows(sql("doctor")))
    assert missing >= 4
    db.admin.execute(sql("secure"))
    db.admin.execute(sql("secure"))  # idempotent
    assert db.rows(sql("doctor")) == []
    with psycopg.connect(db.login("download"), autocommit=True) as worker:
        for statement in (
            "create temp table t (a int)",
            "select lo_create(0)",
            "select pg_advisory_lock(1)",
            "select pg_try_advisory_xact_lock(1)",
            "select pg_sleep(0)",
            "do $$ begin end $$",
            "create table public.t (a int)",
            "create function public.f() returns int language sql return 1",
            "copy (select 1) to program 'true'",
            "select pg_read_file('/etc/passwd')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement)
    # the whole line still runs
    db.add_model()
    db.extract(["http://a.example/1.jpg"])
    db.close_batches()
    db.download()
    db.score()
    assert db.queue("steward")[0].maintain("empty_slots") == 1


def test_temporary_files_of_workers_are_bounded_whoever_adds_them(server: str) -> None:
    with new_database(server) as db:
        older = db.login("download", "older")
        role = psycopg.conninfo.conninfo_to_dict(older)["user"]
        limit = "select setting || unit from pg_settings where name = 'temp_file_limit'"

        def limit_of(login: str) -> str:
            with psycopg.connect(login) as session:
                return str((session.execute(limit).fetchone() or ("",))[0])

        name = db.admin.info.dbname
        db.admin.execute(f"alter role {role} reset temp_file_limit")
        db.admin.execute(f"create role {name}_admin login createrole password 'secret'")
        for kind in ("owner", "download", "steward"):
            db.admin.execute(f"grant {name}_{kind} to {name}_admin with admin option")
        admin = make_conninfo(db.dsn, user=f"{name}_admin", password="secret")
        with psycopg.connect(admin, autocommit=True) as theirs:
            add = "select mill.add_worker(%s, %s, %s, 'secret')"
            theirs.execute(add, (f"{name}_1", "before", "download"))
            before, after, steward = (
                make_conninfo(db.dsn, user=f"{name}_{n}", password="secret") for n in (1, 2, 3)
            )
            assert [limit_of(login) for login in (older, before)] == ["-1kB"] * 2
            db.admin.execute(sql("secure"))
            theirs.execute(add, (f"{name}_2", "after", "download"))
            theirs.execute(add, (f"{name}_3", "trusted", "steward"))
            # the same value by secure.sql and by mill.add_worker
            assert [limit_of(login) for login in (older, before, after)] == ["1048576kB"] * 3
            assert limit_of(steward) == "-1kB"

"""Statements of a volunteer's session that are refused, and change nothing."""

from dataclasses import dataclass

from support.hostile_login import (
    REFUSED,
    Case,
    Cases,
)


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
        alter function api.register_v1 owner to {me}
        alter function api.register_v1 security invoker
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


CASES = Cases({name: Case(REFUSED, r.states) for name, r in REFUSALS.items()})

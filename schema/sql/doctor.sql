-- Rights that any login still has and that secure.sql takes away, or lets the steward end: one row each.

select 'make temporary tables' as what
 where has_database_privilege('public', current_database(), 'temporary')
union all
select 'connect to this database'
 where has_database_privilege('public', current_database(), 'connect')
union all
select 'run code blocks (DO)'
 where has_language_privilege('public', 'plpgsql', 'usage')
union all
select 'keep a transaction open'
 where not pg_has_role(left(current_database(), 40) || '_owner', 'pg_signal_backend', 'usage')
    or not pg_has_role(left(current_database(), 40) || '_owner', 'pg_read_all_stats', 'usage')
union all
select 'call ' || p.proname
  from pg_catalog.pg_proc p
 where p.pronamespace = 'pg_catalog'::regnamespace
   and p.proname in ('lo_create', 'pg_advisory_lock', 'pg_sleep')
   and pg_get_function_identity_arguments(p.oid) in ('oid', 'bigint', 'double precision')
   and has_function_privilege('public', p.oid, 'execute')
union all
select 'fill the disk with temporary files'
 where exists (
    select from mill.worker w join pg_catalog.pg_roles r on r.rolname = w.login
     where w.kind <> 'steward' and w.disabled_at is null
       and not exists (select from unnest(r.rolconfig) c where starts_with(c, 'temp_file_limit=')))

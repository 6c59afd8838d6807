-- Logins that differ from the lists of workers, researchers and pages, and rights that are wider than they should be: what is wrong, of
-- which login, and details for the cure.

with groups as (
    select r.oid, r.rolname, r.rolcanlogin, r.rolsuper, g.kind
      from (select name as kind from mill.worker_kind union all values ('worker'), ('researcher'), ('live'), ('explore'), ('viewer'), ('disabled'), ('owner')) g
      join pg_catalog.pg_roles r on r.rolname = left(current_database(), 40) || '_' || g.kind
), listed as (
    select login, name, kind, disabled_at, 'worker' as list from mill.worker
    union all
    select login, name, 'researcher', disabled_at, 'researcher' from mill.researcher
    union all
    select login, name, page, null, 'page' from mill.page_login
), membership as (
    -- since 16 the maker of a role is a member that may grant it and may not use it
    select m.member, g.kind from pg_catalog.pg_auth_members m join groups g on g.oid = m.roleid where not m.admin_option
), roles as (
    select r.*, l.name, l.kind, l.list, l.disabled_at, l.login is not null as is_listed,
           array(select m.kind from membership m where m.member = r.oid) as kinds
      from pg_catalog.pg_roles r
      left join listed l on l.login = r.rolname
     where r.oid not in (select oid from groups)
), rights as (
    select a.privilege_type || ' on ' || o.what || ' ' || o.name as what, a.grantee, o.schema
      from (select 'schema' as what, n.nspname as name, n.nspname as schema, coalesce(n.nspacl, acldefault('n', n.nspowner)) as acl
              from pg_catalog.pg_namespace n where n.nspname in ('mill', 'api', 'inbox')
            union all
            select 'table', c.oid::regclass::text, n.nspname, coalesce(c.relacl, acldefault('r', c.relowner))
              from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('mill', 'inbox') and c.relkind in ('r', 'p', 'v', 'm')
            union all
            select 'columns of table', c.oid::regclass::text, n.nspname, t.attacl
              from pg_catalog.pg_attribute t join pg_catalog.pg_class c on c.oid = t.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('mill', 'inbox') and t.attacl is not null
            union all
            select 'function', p.oid::regprocedure::text, n.nspname, coalesce(p.proacl, acldefault('f', p.proowner))
              from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
             where n.nspname in ('mill', 'api')) o, aclexplode(o.acl) a
)
select 'unlisted' as what, rolname as login, array_to_string(kinds, ', ') as detail
  from roles
 where not is_listed and rolcanlogin and not rolsuper and cardinality(kinds) > 0 and 'owner' <> all (kinds)
union all
select 'stray', rolname, ''
  from roles r
 where not is_listed and rolcanlogin and rolname ~ '^pm_[0-9a-f]{12}$'
   and not exists (select from pg_catalog.pg_auth_members m where m.member = r.oid)
union all
select 'absent_' || list, name, login from listed l
 where disabled_at is null and not exists (select from pg_catalog.pg_roles r where r.rolname = l.login)
union all
select 'works_' || list, name, rolname
  from roles
 where disabled_at is not null and rolcanlogin and (list = 'researcher' or exists (select from unnest(kinds) k where k <> 'disabled'))
union all
select 'powerless_' || list, name, rolname
  from roles
 where is_listed and disabled_at is null and not (rolcanlogin and kind = any (kinds))
union all
select 'wide', rolname, concat_ws(', ', case when rolsuper then 'superuser' end, case when rolcreaterole then 'createrole' end,
       case when rolcreatedb then 'createdb' end, case when rolreplication then 'replication' end, case when rolbypassrls then 'bypassrls' end, o.others)
  from roles r
 cross join lateral (
       select string_agg('member of ' || g.rolname, ', ' order by g.rolname) as others
         from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid
        where m.member = r.oid and g.rolname not in (select x.rolname from groups x where x.kind in (r.kind, 'disabled'))) o
 where is_listed and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls or o.others is not null)
union all
select 'group', rolname, case when rolsuper then 'superuser' else 'login' end from groups where rolcanlogin or rolsuper
union all
select distinct 'right', coalesce(r.rolname, 'PUBLIC'), x.what
  from rights x
  left join pg_catalog.pg_roles r on r.oid = x.grantee
 where not coalesce(r.rolsuper, false)
   and coalesce(r.rolname, '') not in (select g.rolname from groups g where g.kind = 'owner')
   -- a viewer sees what an admin sees
   and not (x.grantee in (select oid from groups where kind = 'viewer') and (starts_with(x.what, 'SELECT on ') or starts_with(x.what, 'USAGE on ')))
   and (x.grantee not in (select oid from groups) or x.schema = 'mill' and strpos(x.what, ' on function ') = 0)
 order by 1, 2, 3

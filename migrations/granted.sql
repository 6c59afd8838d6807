-- What an admin granted by hand on the views, to roles of their own: it outlives a view that is made anew.
select c.relname, format('grant %s on report.%I to %I', a.privilege_type, c.relname, r.rolname)
  from pg_class c, aclexplode(c.relacl) a join pg_roles r on r.oid = a.grantee
 where c.relnamespace = 'report'::regnamespace and c.relkind = 'v'
   and not starts_with(r.rolname, left(current_database(), 40) || '_')

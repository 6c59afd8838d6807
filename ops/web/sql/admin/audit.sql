-- The audit log, the newest first.

select audit_id, at, ended_at, actor, role, origin, action, arguments, outcome, affected, answer
  from mill.audit
 where (%(action)s::text is null or action = %(action)s or starts_with(action, %(action)s || '.'))
   and (%(actor)s::text is null or actor = %(actor)s)
   and (%(before)s::bigint is null or audit_id < %(before)s)
 order by audit_id desc
 limit %(limit)s

-- Tasks, the highest number first, from before a number on.

select t.task_id, t.kind, t.state, t.wat_id, t.batch_id, t.item_id, t.attempt, t.attempts, t.ready_at, t.reason, t.changed_at, t.is_replica
  from mill.task t
 where (%(state)s::text is null or t.state = %(state)s)
   and (%(kind)s::text is null or t.kind = %(kind)s)
   and (%(reason)s::text is null or position(lower(%(reason)s) in lower(t.reason)) > 0)
   and (%(alike)s::text is null or regexp_replace(coalesce(t.reason, ''), '\d+', 'N', 'g') = %(alike)s)
   and (%(batch)s::bigint is null or t.batch_id = %(batch)s)
   and (%(before)s::bigint is null or t.task_id < %(before)s)
 order by t.task_id desc
 limit %(limit)s

-- The tasks that a filter of the page chooses: the first by number, and how many there are, counted up to most + 1.

with found as materialized (
    select t.task_id from mill.task t
     where t.state = any (%(states)s)
       and (%(kind)s::text is null or t.kind = %(kind)s)
       and (%(reason)s::text is null or position(lower(%(reason)s) in lower(t.reason)) > 0)
       and (%(alike)s::text is null or regexp_replace(coalesce(t.reason, ''), '\d+', 'N', 'g') = %(alike)s)
     limit %(most)s + 1
)
select count(*) as tasks,
       coalesce((select array_agg(f.task_id order by f.task_id) from (select task_id from found order by task_id limit %(listed)s) f), '{}') as ids
  from found

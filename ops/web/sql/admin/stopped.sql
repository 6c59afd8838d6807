-- Tasks that were given up or parked, by reason: those whose reasons differ in numbers alone are counted together.

select state, kind, regexp_replace(coalesce(reason, ''), '\d+', 'N', 'g') as alike, (array_agg(coalesce(reason, '') order by task_id desc))[1] as reason,
       count(*) as tasks, max(attempts) as attempts, max(changed_at) as changed_at, min(changed_at) as first_at,
       (array_agg(task_id order by task_id desc))[:3] as task_ids
  from mill.task
 where state in ('discarded', 'parked')
 group by state, kind, alike
 order by state, tasks desc, kind, alike
 limit 200

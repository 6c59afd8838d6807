-- Tasks that failed and will be tried again, by reason; of 20,000 at most.

select kind, regexp_replace(coalesce(reason, ''), '\d+', 'N', 'g') as alike, (array_agg(coalesce(reason, '') order by task_id desc))[1] as reason,
       count(*) as tasks, max(attempts) as attempts, min(ready_at) as next_at, (array_agg(task_id order by task_id desc))[:3] as task_ids
  from (select * from mill.task where state in ('ready', 'leased') and attempts > 0 limit 20000) t
 group by kind, alike
 order by tasks desc, kind, alike
 limit 200

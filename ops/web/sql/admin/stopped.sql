-- Tasks that were given up or parked, by reason: those whose reasons differ in numbers alone are counted together; of 100,000 at most.

select g.state, g.kind, g.alike, coalesce(t.reason, '') as reason, g.tasks, g.attempts, g.changed_at, array[g.task_id] as task_ids
  from (select state, kind, regexp_replace(coalesce(reason, ''), '\d+', 'N', 'g') as alike, count(*) as tasks, max(attempts) as attempts,
               max(changed_at) as changed_at, max(task_id) as task_id
          from (select * from mill.task where state in ('discarded', 'parked') limit 100000) s
         group by state, kind, alike
         order by state, tasks desc, kind, alike
         limit 200) g
  join mill.task t using (task_id)
 order by g.state, g.tasks desc, g.kind, g.alike

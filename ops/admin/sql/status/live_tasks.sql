select kind, purpose, model, state, count(*) as tasks
  from report.task
 where state <> 'done'
 group by kind, purpose, model, state
 order by kind, purpose, model, state

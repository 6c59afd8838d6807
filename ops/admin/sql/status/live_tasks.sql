-- Two arms, each with the index of its predicate: tasks that are done are the most.

select kind, purpose, model, state, count(*) as tasks
  from (select kind, purpose, model, state from report.task where state in ('ready', 'leased', 'submitted')
        union all
        select kind, purpose, model, state from report.task where state in ('discarded', 'parked')) t
 group by kind, purpose, model, state
 order by kind, purpose, model, state

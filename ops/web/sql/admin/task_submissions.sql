-- What was submitted for a task, the newest first.

select s.submission_id, w.name as worker, s.part, case when x.submission_id is not null then 'withdrawn' else s.state end as state,
       s.row_count, coalesce(x.reason, s.reason) as reason, s.received_at, s.decided_at
  from mill.submission s
  join mill.worker w using (worker_id)
  left join mill.withdrawn x using (submission_id)
 where s.task_id = %(task)s
 order by s.submission_id desc
 limit 100

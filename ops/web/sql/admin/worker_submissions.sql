-- The newest 1,000 submissions of a worker, by what became of them.

select case when x.submission_id is not null then 'withdrawn' else s.state end as state, count(*) as submissions,
       sum(s.row_count)::bigint as rows, max(s.received_at) as last_at
  from (select y.* from mill.submission y join mill.worker w using (worker_id) where w.name = %(name)s order by y.submission_id desc limit 1000) s
  left join mill.withdrawn x using (submission_id)
 group by 1
 order by 1

-- The depth of the queue, by kind of work, who works, and what was accepted in the last minutes.

select q.kind, q.ready, q.leased, q.discarded, q.done, q.late_leases, q.waiting_submissions, now() - q.oldest_ready_at as oldest,
       (select count(distinct t.worker) from report.task t where t.kind = q.kind and t.state = 'leased') as workers,
       coalesce(r.rows / 5.0, 0) as rows_a_minute
  from report.queue q
  left join (
      select t.kind, sum(s.row_count) as rows
        from mill.submission s
        join mill.task t using (task_id)
       where s.state = 'accepted' and s.decided_at > now() - interval '5 minutes'
       group by t.kind
  ) r on r.kind = q.kind
 order by array_position(array['extract', 'download', 'score'], q.kind)

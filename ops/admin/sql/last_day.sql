-- What was accepted of a kind of work in the last 24 hours.

select coalesce(sum(s.row_count), 0)::bigint as rows
  from mill.submission s
  join mill.task t using (task_id)
 where s.state = 'accepted' and s.decided_at > now() - interval '1 day' and t.kind = %s
   and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)

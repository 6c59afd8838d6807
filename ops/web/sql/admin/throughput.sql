-- Submissions and rows accepted in the last five minutes, hour and day, among the newest 20,000 submissions: there is no index by
-- the time of acceptance. is_all: whether those go back a day.

with newest as materialized (
    select s.task_id, s.row_count, s.state, s.received_at, s.decided_at
      from mill.submission s order by s.submission_id desc limit 20000
)
select t.kind,
       coalesce(sum(n.row_count) filter (where n.decided_at > now() - interval '5 minutes'), 0)::bigint as rows_5_minutes,
       coalesce(sum(n.row_count) filter (where n.decided_at > now() - interval '1 hour'), 0)::bigint as rows_hour,
       coalesce(sum(n.row_count) filter (where n.decided_at > now() - interval '1 day'), 0)::bigint as rows_day,
       (select count(*) < 20000 or min(received_at) < now() - interval '1 day' from newest) as is_all
  from newest n
  join mill.task t using (task_id)
 where n.state = 'accepted'
 group by t.kind
 order by array_position(array['extract', 'download', 'score'], t.kind), t.kind

-- How long leases lasted that were completed, in seconds, and how the others ended: the newest 20,000 leases, by kind of work.

with newest as materialized (
    select l.task_id, l.claimed_at, l.ended_at, l.ended_as
      from mill.lease l order by l.lease_id desc limit 20000
)
select t.kind,
       count(*) filter (where n.ended_as = 'completed') as completed,
       count(*) filter (where n.ended_as = 'failed') as failed,
       count(*) filter (where n.ended_as = 'expired') as expired,
       count(*) filter (where n.ended_as = 'released') as released,
       percentile_cont(array[0.5, 0.95, 0.99]) within group (order by extract(epoch from n.ended_at - n.claimed_at))
           filter (where n.ended_as = 'completed') as seconds,
       min(n.claimed_at) as since
  from newest n
  join mill.task t using (task_id)
 group by t.kind
 order by array_position(array['extract', 'download', 'score'], t.kind), t.kind

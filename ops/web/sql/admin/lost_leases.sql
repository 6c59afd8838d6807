-- Leases of the last day that did not end well, by worker.

select w.name as worker, w.kind, count(*) filter (where l.ended_as = 'failed') as failed, count(*) filter (where l.ended_as = 'expired') as expired,
       count(*) filter (where l.ended_as = 'released') as released, max(l.ended_at) as last_at
  from mill.worker w
  join mill.lease l on l.worker_id = w.worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 day'
 group by w.name, w.kind
 order by count(*) desc
 limit 50

-- The leases that a worker holds.

select l.task_id, t.kind, l.claimed_at, l.expires_at, extract(epoch from now() - l.claimed_at)::double precision as seconds
  from mill.worker w
  join mill.instance i using (worker_id)
  join mill.lease l on l.instance_id = i.instance_id and l.ended_at is null
  join mill.task t on t.task_id = l.task_id
 where w.name = %(name)s
 order by l.lease_id desc
 limit 100

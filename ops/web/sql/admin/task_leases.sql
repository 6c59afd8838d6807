-- The leases of a task, the newest first.

select l.lease_id, w.name as worker, i.version, l.claimed_at, l.expires_at, l.ended_at, l.ended_as,
       extract(epoch from coalesce(l.ended_at, now()) - l.claimed_at)::double precision as seconds
  from mill.lease l
  join mill.instance i using (instance_id)
  join mill.worker w on w.worker_id = i.worker_id
 where l.task_id = %(task)s
 order by l.lease_id desc
 limit 100

-- Checks of workers, the newest first.

select replication_id, worker, batch_id, attempt, kind, state, compared, agreed, agreed::double precision / nullif(compared, 0) as share, opened_at, decided_at
  from report.replication
 where (%(worker)s::text is null or worker = %(worker)s)
   and (%(state)s::text is null or state = %(state)s)
   and (%(before)s::bigint is null or replication_id < %(before)s)
 order by replication_id desc
 limit %(limit)s

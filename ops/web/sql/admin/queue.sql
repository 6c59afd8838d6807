-- The depth of the queue, by kind of work.

select kind, ready, leased, submitted, discarded, parked, done, late_leases, waiting_submissions,
       extract(epoch from now() - oldest_ready_at)::double precision as oldest_ready_seconds
  from report.queue
 order by array_position(array['extract', 'download', 'score'], kind), kind

select name, kind, version, last_seen_at, holds, last_seen_at > now() - interval '10 minutes' as is_here
  from report.worker
 where disabled_at is null
 order by last_seen_at desc nulls last, name

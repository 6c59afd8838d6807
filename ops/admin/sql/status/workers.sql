-- OFFSET 0: when a worker was seen last is looked up once, and not again for is_here.

select name, kind, version, last_seen_at, holds, last_seen_at > now() - interval '10 minutes' as is_here
  from (select name, kind, version, last_seen_at, holds from report.worker where disabled_at is null offset 0) w
 order by last_seen_at desc nulls last, name

-- Who accepts what is submitted, and since when they were seen last; and whether the watchdog may do its work.

select w.name, max(i.last_seen_at) as last_seen_at, extract(epoch from now() - max(i.last_seen_at))::double precision as seconds,
       mill.watchdog_can() as watchdog_can
  from (select true) one
  left join mill.worker w on w.kind = 'steward' and w.disabled_at is null
  left join mill.instance i using (worker_id)
 group by w.name
 order by 2 desc nulls last
 limit 20

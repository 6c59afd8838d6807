-- Workers: those that may work first, of them whoever was seen last. Of what each contributed its own page tells: it would be a
-- count over all submissions here.

select w.name, w.kind, v.version, v.last_seen_at, coalesce(h.leases, 0) as leases, w.streak, w.agreement, w.network, w.proven_at, w.disabled_at,
       nullif(concat_ws('; ', w.stopped_because, w.disabled_because), '') as disabled_because,
       case when w.disabled_at is not null then case when w.stopped_because is not null then 'stopped by checks' else 'disabled' end
            when w.kind <> 'download' then 'works' when w.streak is null then 'vouched for' when w.proven_at is not null then 'proven' else 'unproven' end
           as standing
  from mill.worker w
  left join lateral (select i.version, i.last_seen_at from mill.instance i where i.worker_id = w.worker_id
                      order by i.last_seen_at desc, i.instance_id desc limit 1) v on true
  left join (select i.worker_id, count(*) as leases
               from mill.lease l join mill.instance i using (instance_id) where l.ended_at is null group by 1) h using (worker_id)
 where (%(name)s::text is null or w.name = %(name)s)
 order by w.disabled_at is not null, v.last_seen_at desc nulls last, w.name
 limit 1000

-- Of a URL that no pair has: the removals that name it, and the counts of what extraction drops.

select (select jsonb_agg(jsonb_build_object('removal_id', r.removal_id, 'source', r.source, 'reason', r.reason, 'added_at', r.added_at)
                         order by r.removal_id)
          from mill.removal r
         where r.md5 = any (%(keys)s::uuid[])
            or r.host in (select mill.host_and_above(mill.host(%(url)s))) and (r.subdomains or r.host = mill.host(%(url)s))) as removals,
       (select coalesce(jsonb_object_agg(l.name, l.count order by l.count desc), '{}') from report.link_count l
         where l.stage = 'dropped' and l.link_kind = 'image' and l.count > 0) as dropped,
       (select count(*) from mill.task t where t.kind = 'extract' and t.state <> 'done') as files_to_extract

-- Pairs that some removals name, by how: all, by URL, by host, by the image's hash. A pair may be named in several ways.

select count(*),
       count(*) filter (where x.by_url), count(*) filter (where x.by_host), count(*) filter (where x.by_image)
  from (select bool_or(r.host is null and p.submission_id is null) as by_url,
               bool_or(r.host is not null) as by_host,
               bool_or(p.submission_id is not null) as by_image
          from mill.removed_pair p
          join mill.removal r using (removal_id)
         where r.removal_id = any (%(ids)s) or r.spelling_of = any (%(ids)s)
         group by p.batch_id, p.n) x

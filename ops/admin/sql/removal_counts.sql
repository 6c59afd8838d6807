-- Pairs that some removals name, by how: all, by URL, prefix, host, SAMPLE_ID, the image. A pair may be named in several ways.

select count(*) as matching_pairs,
       count(*) filter (where x.by_url) as by_url, count(*) filter (where x.by_prefix) as by_prefix, count(*) filter (where x.by_host) as by_host,
       count(*) filter (where x.by_image) as by_image, count(*) filter (where x.by_sample) as by_sample
  from (select bool_or(r.host is null and r.sample_id is null and p.submission_id is null) as by_url,
               bool_or(r.prefix is not null) as by_prefix,
               bool_or(r.host is not null and r.prefix is null) as by_host,
               bool_or(r.sample_id is not null) as by_sample,
               bool_or(p.submission_id is not null) as by_image
          from mill.removed_pair p
          join mill.removal r using (removal_id)
         where coalesce(r.spelling_of, r.removal_id) = any (%(ids)s)
         group by p.batch_id, p.n) x

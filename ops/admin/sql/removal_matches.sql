-- Known pairs that removals name: by URL through seen_url, by the image's hash through download,
-- which has no index on hashes and is read whole.

select count(*)
  from (select k.batch_id, k.n from mill.seen_url k where k.url_key = any (%(md5s)s)
        union
        select d.batch_id, d.n from mill.download d where d.md5 = any (%(md5s)s) or d.sha256 = any (%(sha256s)s)) pair

-- One row for each place of the arrays, numbered in their order.

insert into mill.removal (source, md5, sha256, host, subdomains, spelling_of, reason)
select x.source, x.md5, x.sha256, x.host, x.subdomains, x.spelling_of, %s
  from unnest(%s::text[], %s::uuid[], %s::bytea[], %s::text[], %s::boolean[], %s::bigint[])
       with ordinality x (source, md5, sha256, host, subdomains, spelling_of, place)
 order by x.place
returning removal_id

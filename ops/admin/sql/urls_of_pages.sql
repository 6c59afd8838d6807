-- URLs of the known pairs of some pages. No index: pages and pairs are read whole.

select distinct p.url
  from mill.page g
  join mill.pair p on p.wat_id = g.wat_id and p.submission_id = g.submission_id and p.page = g.page
 where g.url = any (%(urls)s)
   and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 order by p.url

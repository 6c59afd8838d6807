-- Of one batch: its pairs, in order, with the addresses of their pages.

select p.n, p.url, p.text, p.language, p.language_probability, p.license, p.wat_id, p.page, g.url as page_url, p.submission_id
  from mill.pair p
  left join mill.page g on g.wat_id = p.wat_id and g.submission_id = p.submission_id and g.page = p.page
 where p.batch_id = %(batch_id)s and (%(positions)s::integer[] is null or p.n = any (%(positions)s))
 order by p.n

-- Of one batch: its pairs, in order.

select p.n, p.url, p.text, p.language, p.language_probability, p.license, p.wat_id, p.page, p.submission_id
  from mill.pair p
 where p.batch_id = %(batch_id)s and (%(positions)s::integer[] is null or p.n = any (%(positions)s))
 order by p.n

-- SAMPLE_IDs of pairs of which something was withdrawn that a release rests on, and nothing else stands in for it: the pair itself,
-- the image, or the score of the release's models.
with gone as materialized (
    select w.submission_id, t.kind, t.batch_id from mill.withdrawn w join mill.submission s using (submission_id) join mill.task t using (task_id)
)
select mill.sample_id(p.batch_id, p.n)
  from mill.pair p
 where p.submission_id in (select submission_id from gone where kind = 'extract') and p.batch_id between %(first)s and %(last)s
union
select mill.sample_id(d.batch_id, d.n)
  from gone join mill.download d on d.batch_id = gone.batch_id and d.submission_id = gone.submission_id
 where gone.kind = 'download' and d.outcome = 0 and d.batch_id between %(first)s and %(last)s
   and not exists (select from mill.download c
                    where c.batch_id = d.batch_id and c.n = d.n and c.md5 = d.md5
                      and not exists (select from mill.withdrawn w where w.submission_id = c.submission_id))
union
select mill.sample_id(s.batch_id, s.n)
  from gone join mill.score s on s.batch_id = gone.batch_id and s.submission_id = gone.submission_id
 where s.batch_id between %(first)s and %(last)s
   and s.model_id in (select model_id from mill.model where digest = any (%(digests)s))
   and not exists (select from mill.score c
                    where c.batch_id = s.batch_id and c.n = s.n and c.model_id = s.model_id and c.similarity = s.similarity
                      and not exists (select from mill.withdrawn w where w.submission_id = c.submission_id))

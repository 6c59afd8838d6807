-- Of these positions of one batch: whether a removal names them or they are cover rows, what the image that counts is, and the embeddings of
-- the score that counts. Positions that are no longer a pair that counts give no row.

select p.n,
       r.removed,
       d.md5,
       d.sha256,
       case when not r.removed then e.image end as image,
       case when not r.removed then e.text end as text
  from mill.pair p
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
 cross join lateral (
       select exists (select from mill.removed_pair x where x.batch_id = p.batch_id and x.n = p.n)
              or exists (select from mill.cover_row c where c.sample_id = p.batch_id << 14 | p.n) as removed) r
  left join mill.current_score s
    on s.batch_id = p.batch_id and s.n = p.n and s.model_id = %(model_id)s and s.outcome = 0
  left join mill.embedding e
    on e.batch_id = s.batch_id and e.n = s.n and e.attempt = s.attempt and e.model_id = s.model_id
   and e.submission_id = s.submission_id
 where p.batch_id = %(batch_id)s and p.n = any (%(positions)s)
   and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 order by p.n

-- DuckDB: as update_withdrawn.sql, of a detached partition. {pairs}, {downloads}: its files; {scores}: those of the release's models.

with pairs as (select sample_id, submission_id from {pairs}),
     downloads as (select sample_id, submission_id, outcome, md5, submission_id in (from taken_back) as gone from {downloads}),
     scores as (select *, submission_id in (from taken_back) as gone from ({scores}))
select sample_id from pairs where submission_id in (from taken_back)
union
select sample_id from downloads d
 where d.gone and d.outcome = 0
   and not exists (from downloads c where c.sample_id = d.sample_id and c.md5 = d.md5 and not c.gone)
union
select sample_id from scores s
 where s.gone
   and not exists (from scores c where c.sample_id = s.sample_id and c.model_id = s.model_id and c.similarity = s.similarity and not c.gone)

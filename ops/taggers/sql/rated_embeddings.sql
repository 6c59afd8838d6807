-- The image embeddings of these samples by a model, each with its place in the list, from 1.

select i.place, e.image
  from unnest(%(sample_ids)s::bigint[]) with ordinality i (sample_id, place)
  join mill.current_score s on s.batch_id = i.sample_id >> 14 and s.n = (i.sample_id & 16383)::integer
   and s.model_id = %(model_id)s and s.outcome = 0
  join mill.embedding e on e.batch_id = s.batch_id and e.n = s.n and e.attempt = s.attempt and e.model_id = s.model_id
   and e.submission_id = s.submission_id
 order by i.place

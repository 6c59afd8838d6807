-- Of one batch: every embedding by one model, in order.

select n, attempt, image, text, submission_id
  from mill.embedding
 where batch_id = %(batch_id)s and model_id = %(model_id)s
   and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id

-- Of one batch: every score by one model, in order.

select n, attempt, outcome, similarity, text_tokens, submission_id
  from mill.score
 where batch_id = %(batch_id)s and model_id = %(model_id)s
   and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id

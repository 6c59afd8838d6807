-- Of one batch: every tag by one tagger, in order.

select n, attempt, label, value, text, submission_id
  from mill.tag
 where batch_id = %(batch_id)s and model_id = %(model_id)s
   and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id

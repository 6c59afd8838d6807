-- Of one batch: every fetch of a backfill, in order.

select n, attempt, outcome, of_attempt, submission_id
  from mill.refetch
 where batch_id = %(batch_id)s and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id

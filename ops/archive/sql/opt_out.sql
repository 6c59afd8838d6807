-- Of one batch: every opt-out, in order.

select n, attempt, signal, value, source, read_at, submission_id
  from mill.opt_out
 where batch_id = %(batch_id)s and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id

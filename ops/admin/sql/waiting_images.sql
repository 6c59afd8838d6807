-- The images of some submissions, of which the batches are given for the sake of the partitions.

select d.batch_id, d.n, d.submission_id, d.pdq
  from mill.download d
 where d.batch_id = any (%s::bigint[]) and d.submission_id = any (%s::bigint[]) and d.pdq is not null

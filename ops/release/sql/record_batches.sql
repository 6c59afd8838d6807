-- The decisions of some batches.

insert into mill.release_batch (batch_id, release_id, decisions, duplicates)
select batch_id, %(release_id)s, decisions, duplicates
  from unnest(%(batches)s::bigint[], %(decisions)s::bytea[], %(duplicates)s::bytea[]) of_batch (batch_id, decisions, duplicates)

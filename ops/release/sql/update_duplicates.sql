-- Duplicates that a release left out, and removals name by now: what stayed in their place goes with them.
select b.duplicates, array_agg(distinct p.n)
  from mill.removed_pair p
  join mill.release_batch b using (batch_id)
 where b.duplicates is not null
   and b.release_id = (select release_id from mill.release where manifest_sha256 = any (%(lineage)s) order by release_id desc limit 1)
 group by b.batch_id, b.duplicates

-- SAMPLE_IDs of the pairs that removals name.
select distinct mill.sample_id(batch_id, n) from mill.removed_pair

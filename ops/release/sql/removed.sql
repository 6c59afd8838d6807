-- The pairs that no release may hold: those that removals name, and cover rows.

select mill.sample_id(batch_id, n) as sample_id from mill.removed_pair
union
select sample_id from mill.cover_row

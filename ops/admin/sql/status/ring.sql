select count(*) as slots, count(*) filter (where state <> 'empty') as used, coalesce(sum(batches), 0)::bigint as batches, bool_and(state = 'full') as is_full
  from mill.thumbnail_slot

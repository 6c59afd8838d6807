select count(*) as batches, coalesce(sum(pairs), 0)::bigint as pairs, min(opened_at) as opened_at, max(closes_at) as closes_at,
       coalesce(max(awaited_files), 0) as awaited_files, coalesce(max(awaited_wat_ids), '{}') as awaited_wat_ids
  from report.open_batch
 where link_kind = 'image'  -- others are not downloaded

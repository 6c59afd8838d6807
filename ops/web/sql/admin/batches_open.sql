select batch_id, link_kind, pairs, opened_at, dealt_at, closes_at, awaited_files from report.open_batch order by batch_id limit 100

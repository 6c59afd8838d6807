select release_id, name, version, built_at, built_by::text as built_by, candidates, kept, kept::double precision / nullif(candidates, 0) as share, is_newest
  from report.release order by release_id desc limit 200

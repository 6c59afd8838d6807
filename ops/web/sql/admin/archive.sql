-- Archived partitions, the newest generation of each.

select distinct on (a.first_batch) a.first_batch, a.last_batch, a.generation, a.folder, a.archived_at, a.archived_by::text as archived_by, a.detached_at,
       (select sum((f ->> 'rows')::bigint) from jsonb_array_elements(case jsonb_typeof(a.files) when 'array' then a.files else '[]' end) f) as rows,
       (select sum((f ->> 'bytes')::bigint) from jsonb_array_elements(case jsonb_typeof(a.files) when 'array' then a.files else '[]' end) f) as bytes
  from mill.archive a
 order by a.first_batch desc, a.generation desc
 limit 200

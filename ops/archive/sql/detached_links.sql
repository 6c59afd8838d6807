-- DuckDB: the pairs of a file whose hosts are named, and whose URLs begin as they are to. {pairs}: the file.

select p.sample_id, m.removal_id
  from {pairs} p
  join named m
    on m.host = rtrim(lower(regexp_extract(split_part(p.url, '/', 3), '^(?:[^?#]*@)?(\[[^]]*\]|[^:?#]*)', 1)), '.')
 where p.counts and (m.prefix is null or starts_with(p.url, m.prefix))
 order by 1, 2

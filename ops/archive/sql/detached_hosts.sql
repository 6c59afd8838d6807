-- DuckDB: the hosts of a file of pairs, as mill.host gives them. {pairs}: the file.

select distinct rtrim(lower(regexp_extract(split_part(url, '/', 3), '^(?:[^?#]*@)?(\[[^]]*\]|[^:?#]*)', 1)), '.') as host
  from {pairs}
 where counts

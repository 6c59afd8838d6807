-- DuckDB: hashes of the images of removed pairs of a detached partition. {downloads}: its file.

select distinct lower(hex(md5)), lower(hex(sha256))
  from {downloads} semi join named using (sample_id)
 where md5 is not null

-- DuckDB: the downloads of a file whose images are named. {downloads}: the file; {some}: of which samples.

select d.sample_id, m.removal_id, d.submission_id
  from {downloads} d
  join named m on m.md5 = d.md5 or m.sha1 = d.sha1 or m.sha256 = d.sha256 or m.dhash = d.dhash
 where d.outcome = 0 and {some}
 order by 1, 2, 3

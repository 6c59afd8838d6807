-- The rows of a folder of facts that dedupe compares: images that were downloaded. {score}: of a model, or none.
select p.sample_id, p.url, p.text, d.sha256, d.dhash, d.width, d.height, {similarity} as similarity, false as removed
  from read_parquet('{pair}') p
  join read_parquet('{download}') d on d.sample_id = p.sample_id and d.counts and d.outcome = 0
  {score}
 where p.counts and p.link_kind = 'image'

-- A row for each pair that counts, with what filters, annotators and layouts read. pair, download and so on are the rows of a
-- folder of facts that count; of each at most one is of a sample. In DuckDB's dialect, as all of a release's passes.

select p.sample_id, p.url, p.text, coalesce(p.language, 'nolang') as language, p.language_probability, p.language_detector,
       p.license, p.link_kind, d.outcome as downloaded, d.bytes, d.width, d.height, d.md5, d.sha1, d.sha256, d.pdq, d.dhash,
       {scored} as scored, {similarity} as similarity, {columns}false as removed
  from pair p
  left join download d on d.sample_id = p.sample_id
  {joins}

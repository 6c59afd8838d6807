-- Every pair that counts, with the first reason for which a recipe leaves it out; null: it is kept.
-- The order of the reasons is the order in which things happen, removals first. Where it says tag_, the
-- lines of release_tag.sql stand for each tagger of the recipe.

select mill.sample_id(p.batch_id, p.n) as sample_id,
       p.url, p.text, d.height, d.width, p.license, coalesce(p.language, 'nolang') as language, s.similarity, d.md5,
       {tag_columns}
       case
           when exists (select from mill.removed_pair x where x.batch_id = p.batch_id and x.n = p.n) then 'removed'
           -- found already, but a second lock: three looks into hashes
           when p.url_key in (select md5 from mill.removal) or d.md5 in (select md5 from mill.removal)
                or d.sha256 in (select sha256 from mill.removal) then 'removed'
           when d.outcome is null then 'not_downloaded'
           when d.outcome <> 0 then 'download_failed'
           when s.outcome is null then 'not_scored'
           when s.outcome <> 0 then 'scoring_failed'
           when cardinality(%(language_detectors)s::text[]) > 0 and f.language_detector <> all (%(language_detectors)s::text[]) then 'language_detector'
           when cardinality(%(languages)s::text[]) > 0 and coalesce(p.language, 'nolang') <> all (%(languages)s::text[]) then 'language'
           when length(p.text) < %(min_text_length)s
                and not (%(text_by_script)s and mill.text_weight(p.text) >= %(min_text_length)s) then 'text_too_short'
           when d.bytes < %(min_bytes)s then 'too_few_bytes'
           when s.similarity < coalesce((%(min_similarity_by_language)s::jsonb ->> coalesce(p.language, 'nolang'))::real,
                                        %(min_similarity)s::real) then 'similarity'
           {tag_reasons}
       end as excluded
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id and b.link_kind = 'image'
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n
   and s.model_id = case when coalesce(p.language, 'nolang') = any (%(model_languages)s::text[]) then %(model_id)s::integer
                         else %(multilingual_id)s::integer end
  {tag_joins}
  -- last: it has no partitions, and those before it are joined partition by partition
  left join mill.wat_file f on f.wat_id = p.wat_id
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)

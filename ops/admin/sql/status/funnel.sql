-- Pairs of images by language, and by outcome: summed here, since of a hundred languages both together are thousands of rows.

select language, outcome, sum(pairs)::bigint as pairs
  from report.pair_count
 where link_kind = 'image'
 group by grouping sets ((language), (outcome))
 order by pairs desc, language, outcome

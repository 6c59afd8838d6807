-- What release.sql needs of one tagger, the i-th of the recipe: columns, reasons, joins.
--
t{i}.value as value_{i}, t{i}.label as label_{i},
--
when %(has_threshold_{i})s and t{i}.value is null then 'not_tagged'
           when t{i}.value < %(min_{i})s or t{i}.value > %(max_{i})s then %(column_{i})s
--
left join mill.tag t{i} on t{i}.batch_id = p.batch_id and t{i}.n = p.n and t{i}.model_id = %(tagger_{i})s::integer
   -- as mill.current_tag, with the download that is there already
   and t{i}.attempt = d.attempt and not exists (select from mill.withdrawn w where w.submission_id = t{i}.submission_id)

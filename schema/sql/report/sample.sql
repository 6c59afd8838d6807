-- Pairs and what became of them: which rows count, and report.sample, which has all of it in one row.
--
-- The views of pairs are made batch by batch: for each row of mill.batch a subquery that begins with that batch's range of each
-- table. Joined whole, (batch_id, n) are two columns that the planner takes for independent, and an anti join of them it takes for
-- one row: report.score with report.pair ran for ten minutes at 93,000 pairs. Within a batch n alone is joined, which is
-- estimated well with fresh statistics and well enough without any; a range of batch_id reads nothing else of any table; and what
-- is hashed fits into work_mem. OFFSET 0 keeps a reader's conditions, and so their estimates, out of the subquery.
-- docs/decisions/2026-11-26-views-go-batch-by-batch.md

-- (EXISTS …) IS NOT TRUE: looked up in a hash made once, or row by row where that would be too large, and estimated at one half.
-- NOT EXISTS becomes an anti join, which is estimated at one row as soon as as many submissions were withdrawn as a sample shows.
create view mill.current_download as
select d.*
  from mill.download d
 where (exists (select from mill.withdrawn w where w.submission_id = d.submission_id)) is not true
   and not exists (
       select
         from mill.download later
        where later.batch_id = d.batch_id and later.n = d.n and later.attempt > d.attempt
          and later.attempt > 1  -- the planner knows how few these are
          and (exists (select from mill.withdrawn w where w.submission_id = later.submission_id)) is not true);
comment on view mill.current_download is 'The download that counts for a pair: of those not withdrawn, the highest attempt.';

create view mill.current_score as
select s.*
  from mill.score s
  join mill.current_download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
 where (exists (select from mill.withdrawn w where w.submission_id = s.submission_id)) is not true;
comment on view mill.current_score is 'The scores that count for a pair: not withdrawn, and of the download that counts.';

create view mill.current_tag as
select g.*
  from mill.tag g
  join mill.current_download d on d.batch_id = g.batch_id and d.n = g.n and d.attempt = g.attempt
 where (exists (select from mill.withdrawn w where w.submission_id = g.submission_id)) is not true;
comment on view mill.current_tag is 'The tags that count for a pair: not withdrawn, and of the download that counts.';

create view mill.default_model as
select coalesce((select s.default_model_id from mill.setting s),
                (select min(m.model_id) from mill.model m where m.kind = 'clip' and m.retired_at is null),
                (select min(m.model_id) from mill.model m where m.kind = 'clip')) as model_id;
comment on view mill.default_model is
    'The CLIP model whose similarity report.sample shows: setting.default_model_id, else the oldest that is active, else the oldest; null while there is none.';
comment on column mill.default_model.model_id is 'The model';

-- What an unread column costs nothing to leave out: each left join is on a column that is unique on its other side, so it goes with
-- its columns; and what is looked up by another key than the batch's stands in the outer SELECT, where it is looked up for the rows
-- that are left. DISTINCT ON says so to PostgreSQL 15, which does not see that a partitioned table's key is unique.
create view report.sample as
with apart as (select)
select s.sample_id, b.batch_id, s.n, s.url, s.text, mill.host(s.url) as host, s.language, s.language_probability,
       (select f.language_detector from mill.wat_file f where f.wat_id = s.wat_id) as language_detector,
       s.license, b.link_kind, s.wat_id,
       (select f.location from mill.wat_file f where f.wat_id = s.wat_id) as wat,
       (select c.name from mill.wat_file f join mill.crawl c using (crawl_id) where f.wat_id = s.wat_id) as crawl,
       (select g.url from mill.page g
         where g.wat_id = s.wat_id and g.submission_id = s.extraction and g.page = s.page and s.removed_because is null) as page_url,
       (select g.crawled_at from mill.page g where g.wat_id = s.wat_id and g.submission_id = s.extraction and g.page = s.page) as crawled_at,
       s.outcome, s.http_status, s.bytes, s.width, s.height, s.md5, s.sha256, s.dhash, s.attempt,
       (select u.received_at from mill.submission u where u.submission_id = s.fetched_with) as fetched_at,
       s.opt_out_signal, s.opt_out_value, s.opt_out_source,
       s.similarity, s.score_outcome, s.text_tokens, s.similarities, s.tags, s.labels, s.removed_because, s.releases
  from mill.batch b
 cross join lateral (
       select mill.sample_id(p.batch_id, p.n) as sample_id, p.n, p.wat_id, p.submission_id as extraction, p.page,
              case when r.n is null then p.url end as url, case when r.n is null then p.text end as text,
              coalesce(p.language, 'nolang') as language, p.language_probability,
              case when r.n is null then p.license end as license,
              o.name as outcome, d.http_status, d.bytes, d.width, d.height,
              case when r.n is null then d.md5 end as md5, case when r.n is null then d.sha256 end as sha256,
              case when r.n is null then d.dhash end as dhash, d.attempt,
              d.submission_id as fetched_with,
              x.signal as opt_out_signal, case when r.n is null then x.value end as opt_out_value,
              case when r.n is null then x.source end as opt_out_source,
              c.similarity, q.name as score_outcome, c.text_tokens, m.similarities, t.tags, t.labels, r.reason as removed_because, v.releases
         from mill.pair p
         left join (select distinct on (e.n) e.n, e.reason
                      from mill.removed e where e.batch_id = b.batch_id order by e.n) r on r.n = p.n
         left join (select distinct on (e.n) e.*
                      from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = p.n
         left join mill.outcome o on o.code = d.outcome
         left join (select distinct on (e.n, e.attempt) e.*
                      from mill.opt_out e where e.batch_id = b.batch_id order by e.n, e.attempt) x on x.n = p.n and x.attempt = d.attempt
         left join (select distinct on (e.n, e.attempt) e.*
                      from mill.score e
                     where e.batch_id = b.batch_id and e.model_id = (select model_id from mill.default_model)
                       and (exists (select from mill.withdrawn w where w.submission_id = e.submission_id)) is not true
                     order by e.n, e.attempt) c on c.n = p.n and c.attempt = d.attempt
         left join mill.score_outcome q on q.code = c.outcome
         left join (select e.n, e.attempt, jsonb_object_agg(k.name || case when k.pretrained = '' then '' else '/' || k.pretrained end, e.similarity) as similarities
                      from mill.score e
                      join mill.model k using (model_id)
                     where e.batch_id = b.batch_id and e.similarity is not null
                       and (exists (select from mill.withdrawn w where w.submission_id = e.submission_id)) is not true
                     group by e.n, e.attempt) m on m.n = p.n and m.attempt = d.attempt
         left join (select e.n, e.attempt, jsonb_object_agg(k.name, e.value) as tags,
                           jsonb_object_agg(k.name, coalesce(k.labels[e.label + 1], e.text)) filter (where coalesce(k.labels[e.label + 1], e.text) is not null) as labels
                      from mill.tag e
                      join mill.model k on k.model_id = e.model_id and k.base_model_id = (select model_id from mill.default_model)
                     where e.batch_id = b.batch_id
                       and (exists (select from mill.withdrawn w where w.submission_id = e.submission_id)) is not true
                     group by e.n, e.attempt) t on t.n = p.n and t.attempt = d.attempt
         left join (select e.n, jsonb_object_agg(e.name, e.words[e.code]) as releases
                           -- a batch's decisions are read from their TOAST once, and are not in the rows that are sorted: 7 s and not 45
                      from (select l.name, l.words, i as n, get_byte(l.decisions, i) as code
                              from (select l.name, l.words, l.decisions || ''::bytea as decisions
                                      from mill.newest_release_batch l where l.batch_id = b.batch_id offset 0) l,
                                   generate_series(0, length(l.decisions) - 1) i
                            offset 0) e
                     where e.code > 0
                     group by e.n) v on v.n = p.n
        where p.batch_id = b.batch_id
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) s;
comment on view report.sample is
    'Every pair that counts: where it is from, its download, its scores and tags, its removal and the releases. Name a range of batch_id: '
    'only its batches are read, and of those only what the columns need.';
comment on column report.sample.sample_id is 'Stable id: batch_id * 16,384 + n; SAMPLE_ID in a release. Look one up by report.find';
comment on column report.sample.batch_id is 'Batch of up to 10,000 pairs';
comment on column report.sample.n is 'Position within the batch';
comment on column report.sample.url is 'Absolute URL of the image, without a fragment; null of a removed pair';
comment on column report.sample.text is 'The cleaned alt text; null of a removed pair';
comment on column report.sample.host is 'The URL''s host, in lower case; null of a removed pair';
comment on column report.sample.language is 'The language by language_detector where that is sure, else nolang';
comment on column report.sample.language_probability is 'Probability of language_detector''s best guess';
comment on column report.sample.language_detector is 'cld3 or fasttext: what `pairmill wat add` or `crawl add` named for the file';
comment on column report.sample.license is 'A licence link of the page; null where there is none, and of a removed pair';
comment on column report.sample.link_kind is 'image, audio, video or document; only images are downloaded';
comment on column report.sample.wat_id is 'The WAT file that it came from; see report.wat';
comment on column report.sample.wat is 'Path or URL of that file';
comment on column report.sample.crawl is 'The file''s crawl; null of a file that was added alone';
comment on column report.sample.page_url is 'URL of the page that had the link; null where the WAT has none, and of a removed pair';
comment on column report.sample.crawled_at is 'When the page was crawled; null where that is not known';
comment on column report.sample.outcome is 'Outcome of the download that counts; null while there is none';
comment on column report.sample.http_status is 'The last HTTP status; null where no server answered';
comment on column report.sample.bytes is 'Length of the body as received';
comment on column report.sample.width is 'Width of the original in pixels';
comment on column report.sample.height is 'Height of the original in pixels';
comment on column report.sample.md5 is 'md5 of the image''s bytes; null of a removed pair, as sha256 and dhash';
comment on column report.sample.sha256 is 'sha256 of the image''s bytes';
comment on column report.sample.dhash is '64-bit difference hash, as a signed integer';
comment on column report.sample.attempt is 'Number of the download attempt that counts, from 1: which download of its batch';
comment on column report.sample.fetched_at is
    'When the worker handed the download in, some minutes after the fetch; of a pair whose page opts out, when its extraction was';
comment on column report.sample.opt_out_signal is 'As report.opt_out.signal; null unless the outcome is opted_out';
comment on column report.sample.opt_out_value is 'The rule that forbids; null of a removed pair';
comment on column report.sample.opt_out_source is 'The URL that the rule was read from; null of a removed pair';
comment on column report.sample.similarity is
    'Cosine similarity of image and text by the default model (report.model.is_default); null unless scored';
comment on column report.sample.score_outcome is 'scored, or why not, by the default model; null while that has not been tried';
comment on column report.sample.text_tokens is 'As report.score.text_tokens, of the default model';
comment on column report.sample.similarities is 'Similarities by all models: {"ViT-B-32/openai": 0.31}; null where there is none';
comment on column report.sample.tags is 'Values by the default model''s taggers: {"aesthetic": 5.1}; null where there is none';
comment on column report.sample.labels is 'Categories, or answers in words, by those taggers that give some: {"nsfw": "neutral"}; else null';
comment on column report.sample.removed_because is 'The removal''s reason, which may be empty; null unless the pair is removed';
comment on column report.sample.releases is
    'What the newest release of each name made of it: {"laion-400m": "kept"}, or the reason why not; null where none has looked at it';

-- By its batch first: as one query, a plan might make every batch's rows to find one.
create function report.find(sample_id bigint) returns setof report.sample
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query select s.* from report.sample s where s.batch_id = $1 >> 14 and s.n = ($1 & 16383)::integer;
end
$$;
comment on function report.find(bigint) is 'The pair with this SAMPLE_ID, as in report.sample; no row: there is none that counts.';

create function report.find(url text) returns setof report.sample
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    known mill.seen_url;
begin
    select * into known from mill.seen_url k where k.url_key = md5(split_part($1, '#', 1))::uuid;
    return query select s.* from report.sample s where s.batch_id = known.batch_id and s.n = known.n;
end
$$;
comment on function report.find(text) is
    'The pair with this URL, as in report.sample; a fragment does not matter. No row: no pair has it. It was dropped at extraction, or in no WAT file.';

do $$
declare
    researcher constant text := left(current_database(), 40) || '_researcher';
begin
    revoke execute on function report.find(bigint), report.find(text) from public;
    execute format('grant execute on function report.find(bigint), report.find(text) to %I', researcher);
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.host to %I', researcher);
end
$$;

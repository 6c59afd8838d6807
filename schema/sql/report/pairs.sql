-- Views of pairs and of what became of them, for researchers. Each is named after its row, and goes batch by batch, as
-- report.sample does.
--
-- Joined to the left, and asked by CASE whether it is the same attempt: an inner join would be estimated at a few rows where a table
-- was never analyzed, and be planned as look-ups of 10,000 rows one by one.

create view report.pair as
select s.sample_id, s.batch_id, s.n, s.wat_id, s.url, s.text, s.language, s.language_probability, s.license,
       s.outcome, s.http_status, s.bytes, s.width, s.height, s.md5, s.sha256, s.dhash, s.attempt,
       s.removed_because is not null as removed, s.link_kind
  from report.sample s;
comment on view report.pair is 'Every pair with the download that counts, a part of report.sample. Name a range of batch_id: there may be billions.';
comment on column report.pair.sample_id is 'Stable id: batch_id * 16,384 + n; SAMPLE_ID in a release';
comment on column report.pair.batch_id is 'Batch of up to 10,000 pairs';
comment on column report.pair.n is 'Position within the batch';
comment on column report.pair.wat_id is 'The WAT file that it came from; see report.wat';
comment on column report.pair.url is 'Absolute URL of the image, without a fragment; null of a removed pair';
comment on column report.pair.text is 'The cleaned alt text; null of a removed pair';
comment on column report.pair.language is 'The language by report.sample.language_detector where that is sure, else nolang';
comment on column report.pair.language_probability is 'Probability of that detector''s best guess';
comment on column report.pair.license is 'A licence link of the page; null where there is none, and of a removed pair';
comment on column report.pair.outcome is 'Outcome of the download; null while it has not ended';
comment on column report.pair.http_status is 'The last HTTP status; null where no server answered';
comment on column report.pair.bytes is 'Length of the body as received';
comment on column report.pair.width is 'Width of the original in pixels';
comment on column report.pair.height is 'Height of the original in pixels';
comment on column report.pair.md5 is 'md5 of the image''s bytes; null of a removed pair, as sha256 and dhash';
comment on column report.pair.sha256 is 'sha256 of the image''s bytes';
comment on column report.pair.dhash is '64-bit difference hash, as a signed integer';
comment on column report.pair.attempt is 'Number of the download attempt that counts, from 1: which download of its batch';
comment on column report.pair.removed is 'Whether a removal names its URL, its host or its image';
comment on column report.pair.link_kind is 'image, audio, video or document; only images are downloaded';

create view report.score as
with apart as (select)
select mill.sample_id(b.batch_id, s.n) as sample_id, b.batch_id, s.n, s.model, s.pretrained, s.outcome, s.similarity, s.text_tokens
  from mill.batch b
 cross join lateral (
       select s.n, m.name as model, m.pretrained, o.name as outcome, s.similarity, s.text_tokens
         from mill.score s
         left join (select distinct on (e.n) e.n, e.attempt from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = s.n
         left join mill.model m using (model_id)
         left join mill.score_outcome o on o.code = s.outcome
         left join mill.pair p on p.batch_id = b.batch_id and p.n = s.n
        where s.batch_id = b.batch_id and case when s.attempt = d.attempt then true end
          and (exists (select from mill.withdrawn w where w.submission_id = s.submission_id)) is not true
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) s;
comment on view report.score is 'Every score that counts. Name a range of batch_id.';
comment on column report.score.sample_id is 'As report.pair.sample_id';
comment on column report.score.batch_id is 'As report.pair.batch_id';
comment on column report.score.n is 'As report.pair.n';
comment on column report.score.model is 'Name of the model';
comment on column report.score.pretrained is 'Its weights: open_clip''s tag or a path';
comment on column report.score.outcome is 'scored, or why not';
comment on column report.score.similarity is 'Cosine similarity of image and text; null unless scored';
comment on column report.score.text_tokens is 'Tokens of the text before the model cut it to its length, start and end among them; null: the worker gave none';

create view report.tag as
with apart as (select)
select mill.sample_id(b.batch_id, g.n) as sample_id, b.batch_id, g.n, g.model, g.value, g.label, g.text
  from mill.batch b
 cross join lateral (
       select g.n, m.name as model, g.value, m.labels[g.label + 1] as label, g.text
         from mill.tag g
         left join (select distinct on (e.n) e.n, e.attempt from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = g.n
         left join mill.model m using (model_id)
         left join mill.pair p on p.batch_id = b.batch_id and p.n = g.n
        where g.batch_id = b.batch_id and case when g.attempt = d.attempt then true end
          and (exists (select from mill.withdrawn w where w.submission_id = g.submission_id)) is not true
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) g;
comment on view report.tag is 'Taggers'' values for images: every tag that counts. Name a range of batch_id.';
comment on column report.tag.sample_id is 'As report.pair.sample_id';
comment on column report.tag.batch_id is 'As report.pair.batch_id';
comment on column report.tag.n is 'As report.pair.n';
comment on column report.tag.model is 'Name of the tagger';
comment on column report.tag.value is 'The value; null where it was no finite number';
comment on column report.tag.label is 'The category found; null for taggers without categories';
comment on column report.tag.text is 'The answer in words; null for taggers that give numbers';

create view report.outcome as select code, name, retry from mill.outcome;
comment on view report.outcome is 'The closed list of download outcomes.';
comment on column report.outcome.code is '0 is success';
comment on column report.outcome.name is 'As report.pair.outcome';
comment on column report.outcome.retry is 'Whether the same URL may well end otherwise some hours later';

create view report.opt_out as
with apart as (select)
select mill.sample_id(b.batch_id, x.n) as sample_id, b.batch_id, x.n, x.url, mill.host(x.url) as host, x.signal, x.value, x.source, x.read_at
  from mill.batch b
 cross join lateral (
       select x.n, x.signal, x.read_at, case when r.n is null then p.url end as url,
              case when r.n is null then x.value end as value, case when r.n is null then x.source end as source
         from mill.opt_out x
         left join (select distinct on (e.n) e.n, e.attempt from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = x.n
         left join mill.pair p on p.batch_id = b.batch_id and p.n = x.n
         left join mill.removed r on r.batch_id = b.batch_id and r.n = x.n
        where x.batch_id = b.batch_id and case when x.attempt = d.attempt then true end
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) x;
comment on view report.opt_out is 'Pairs that were not collected since their site or page opted out, with its words. Name a range of batch_id.';
comment on column report.opt_out.sample_id is 'As report.pair.sample_id';
comment on column report.opt_out.batch_id is 'As report.pair.batch_id';
comment on column report.opt_out.n is 'As report.pair.n';
comment on column report.opt_out.url is 'The URL of the image; null of a removed pair, as host, value and source';
comment on column report.opt_out.host is 'The URL''s host';
comment on column report.opt_out.signal is 'robots.txt, tdmrep.json, ai.txt; a header: X-Robots-Tag, Robots-Tag, tdm-reservation, Content-Usage, Content-Signal; or an element of the page: meta robots, …';
comment on column report.opt_out.value is 'The rule that forbids';
comment on column report.opt_out.source is 'The URL that the rule was read from';
comment on column report.opt_out.read_at is 'When it was read; of a page, when it was crawled';

create view report.dead_link as
with apart as (select)
select mill.sample_id(b.batch_id, l.n) as sample_id, b.batch_id, l.n, l.url, l.outcome, l.networks, l.networks >= 2 as believed,
       mill.host(l.url) as host
  from mill.batch b
 cross join lateral (
       select d.n, o.name as outcome, case when r.n is null then p.url end as url, coalesce(f.networks, 0) as networks
         from mill.current_download d
         left join mill.outcome o on o.code = d.outcome
         left join mill.pair p on p.batch_id = b.batch_id and p.n = d.n
         left join mill.removed r on r.batch_id = b.batch_id and r.n = d.n
         left join (select x.n, count(distinct u.network) as networks
                      from mill.download x
                           -- a replica's rows count for this view alone
                      join (select s.submission_id, w.network
                              from mill.task t
                              join mill.submission s using (task_id)
                              join mill.worker w on w.worker_id = s.worker_id
                             where t.kind = 'download' and t.batch_id = b.batch_id
                               and (t.is_replica or (exists (select from mill.withdrawn z where z.submission_id = s.submission_id)) is not true)
                            offset 0) u on u.submission_id = x.submission_id
                     where x.batch_id = b.batch_id and x.outcome not in (0, 50, 51)  -- success, opted_out, opt_out_unknown
                     group by x.n) f on f.n = d.n
        where d.batch_id = b.batch_id and d.outcome not in (0, 50, 51)
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) l;
comment on view report.dead_link is
    'Pairs that gave no image, and how many networks found none. Name a range of batch_id: there may be billions.';
comment on column report.dead_link.sample_id is 'As report.pair.sample_id';
comment on column report.dead_link.batch_id is 'As report.pair.batch_id';
comment on column report.dead_link.n is 'As report.pair.n';
comment on column report.dead_link.url is 'The URL; null of a removed pair, as its host';
comment on column report.dead_link.outcome is 'How its download ended';
comment on column report.dead_link.networks is 'Networks of workers, as admins named them, that found no image';
comment on column report.dead_link.believed is 'Whether two networks found none: one network''s trouble is shared by all in it';
comment on column report.dead_link.host is 'The URL''s host';

create view report.recheck as
with apart as (select)
select mill.sample_id(b.batch_id, c.n) as sample_id, b.batch_id, c.n, c.url, mill.host(c.url) as host, c.outcome,
       c.purpose, c.attempt, c.state, c.ready_at
  from mill.batch b
 cross join lateral (
       select q.n, case when r.n is null then p.url end as url, o.name as outcome,
              case when t.is_replica then 'check' when t.for_model_id is not null then 'backfill'
                   when t.avoid_workers is not null then 'second network' else 'retry' end as purpose,
              t.attempt, t.state, t.ready_at
         from mill.task t
        cross join unnest(t.positions) q (n)
         left join mill.pair p on p.batch_id = b.batch_id and p.n = q.n
         left join (select distinct on (e.n) e.n, e.attempt, e.outcome from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = q.n
         left join mill.outcome o on o.code = d.outcome
         left join mill.removed r on r.batch_id = b.batch_id and r.n = q.n
        where t.kind = 'download' and t.batch_id = b.batch_id and t.state in ('ready', 'leased', 'submitted')
          and (exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) is not true
       offset 0) c;
comment on view report.recheck is
    'Pairs whose URL is about to be fetched again: one row for each that a queued download task names. Name a range of batch_id.';
comment on column report.recheck.sample_id is 'As report.pair.sample_id';
comment on column report.recheck.batch_id is 'As report.pair.batch_id';
comment on column report.recheck.n is 'As report.pair.n';
comment on column report.recheck.url is 'The URL; null of a removed pair, as its host';
comment on column report.recheck.host is 'The URL''s host';
comment on column report.recheck.outcome is 'How its download ended so far';
comment on column report.recheck.purpose is
    'retry; second network: one network found the link dead, another is asked; check: a worker''s results are repeated by another; backfill: a model needs its thumbnail';
comment on column report.recheck.attempt is 'Number of the download attempt to come';
comment on column report.recheck.state is 'ready, leased or submitted: of the task, which may have part of its URLs behind it';
comment on column report.recheck.ready_at is 'Earliest time of the task''s next claim';

-- From the counters of counters.sql: what the rows would say.
create view report.pair_count as
with funnel as materialized (
    select * from mill.funnel where model_id = 0
)
select f.language, o.name as outcome, f.count as pairs, f.link_kind
  from funnel f join mill.outcome o on o.code = f.outcome
union all
select f.language, 'waiting', sum(case f.outcome when -1 then f.count else -f.count end)::bigint, f.link_kind
  from funnel f
 group by f.language, f.link_kind
having sum(case f.outcome when -1 then f.count else -f.count end) <> 0;
comment on view report.pair_count is 'Pairs by language and outcome of their download. Reads counters, and no pair.';
comment on column report.pair_count.language is 'The language by report.sample.language_detector where that is sure, else nolang';
comment on column report.pair_count.outcome is 'Outcome of the download; waiting while it has not ended';
comment on column report.pair_count.pairs is 'How many pairs';
comment on column report.pair_count.link_kind is 'image, audio, video or document; only images are downloaded';

-- Unscored pairs are the successes less those that have a score. Which of them wait is counted from the batches that have a task to
-- come: those of the ring of thumbnails, and backfills.
create view report.score_count as
with funnel as materialized (
    select model_id, language, outcome, sum(count) as pairs from mill.funnel where model_id > 0 or outcome = 0 group by 1, 2, 3
), unscored as (
    select m.model_id, x.language, sum(case x.model_id when 0 then x.pairs else -x.pairs end) as pairs
      from mill.model m join funnel x on x.model_id in (0, m.model_id)
     where m.kind = 'clip' and m.retired_at is null
     group by m.model_id, x.language
), waiting as (
    select t.model_id, u.language, sum(case c.model_id when 0 then u.count else -u.count end) as pairs
      from mill.scoring_to_come t
      join mill.batch_count c on c.batch_id = t.batch_id and c.model_id in (0, t.model_id) and c.attempt > 0 and (t.whole or c.attempt = any (t.attempts))
     cross join lateral unnest(c.language, c.outcome, c.count) u (language, outcome, count)
     where c.model_id > 0 or u.outcome = 0
     group by t.model_id, u.language
), counted as (
    select f.model_id, f.language, o.name as outcome, f.pairs from funnel f join mill.score_outcome o on o.code = f.outcome where f.model_id > 0
    union all
    select u.model_id, u.language, x.outcome, x.pairs
      from unscored u left join waiting w using (model_id, language),
           lateral (values ('waiting', coalesce(w.pairs, 0)), ('not_queued', u.pairs - coalesce(w.pairs, 0))) x (outcome, pairs)
)
select m.name as model, c.language, c.outcome, sum(c.pairs)::bigint as pairs
  from counted c join mill.model m using (model_id)
 where c.pairs <> 0
 group by m.name, c.language, c.outcome;
comment on view report.score_count is
    'Downloaded pairs by model, language and outcome of their scoring; of a retired model only those that it tried. Reads counters, and no pair.';
comment on column report.score_count.model is 'Name of the model';
comment on column report.score_count.language is 'The language by report.sample.language_detector where that is sure, else nolang';
comment on column report.score_count.outcome is
    'scored, or why not; waiting while a task will score it; not_queued where none will: its thumbnails are gone (`pairmill model backfill`), or its '
    'task was discarded or parked (`pairmill task retry`)';
comment on column report.score_count.pairs is 'How many pairs';

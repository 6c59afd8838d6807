-- Views of pairs and of what became of them, for researchers. Each is named after its row.

create view mill.current_download as
select d.*
  from mill.download d
 where not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
   and not exists (
       select
         from mill.download later
        where later.batch_id = d.batch_id and later.n = d.n and later.attempt > d.attempt
          and not exists (select from mill.withdrawn w where w.submission_id = later.submission_id));
comment on view mill.current_download is 'The download that counts for a pair: of those not withdrawn, the highest attempt.';

create view mill.current_score as
select s.*
  from mill.score s
  join mill.current_download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id);
comment on view mill.current_score is 'The scores that count for a pair: not withdrawn, and of the download that counts.';

create view mill.current_tag as
select g.*
  from mill.tag g
  join mill.current_download d on d.batch_id = g.batch_id and d.n = g.n and d.attempt = g.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = g.submission_id);
comment on view mill.current_tag is 'The tags that count for a pair: not withdrawn, and of the download that counts.';

create view report.pair as
select mill.sample_id(p.batch_id, p.n) as sample_id, p.batch_id, p.n, p.wat_id,
       p.url, p.text, coalesce(p.language, 'nolang') as language, p.language_probability, p.license,
       o.name as outcome, d.http_status, d.bytes, d.width, d.height, d.md5, d.sha256, d.dhash, d.attempt,
       exists (select from mill.removal r where r.md5 in (p.url_key, d.md5) or r.sha256 = d.sha256) as removed,
       b.link_kind
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id);
comment on view report.pair is 'Every pair with the download that counts. Name a range of batch_id: there may be billions.';
comment on column report.pair.sample_id is 'Stable id: batch_id * 16,384 + n; SAMPLE_ID in a release';
comment on column report.pair.batch_id is 'Batch of up to 10,000 pairs';
comment on column report.pair.n is 'Position within the batch';
comment on column report.pair.wat_id is 'The WAT file that it came from; see report.wat';
comment on column report.pair.url is 'Absolute URL of the image, without a fragment';
comment on column report.pair.text is 'The cleaned alt text';
comment on column report.pair.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair.language_probability is 'CLD3''s probability of its best guess';
comment on column report.pair.license is 'A licence link of the page; null where there is none';
comment on column report.pair.outcome is 'Outcome of the download; null while it has not ended';
comment on column report.pair.http_status is 'The last HTTP status; null where no server answered';
comment on column report.pair.bytes is 'Length of the body as received';
comment on column report.pair.width is 'Width of the original in pixels';
comment on column report.pair.height is 'Height of the original in pixels';
comment on column report.pair.md5 is 'md5 of the image''s bytes';
comment on column report.pair.sha256 is 'sha256 of the image''s bytes';
comment on column report.pair.dhash is '64-bit difference hash, as a signed integer';
comment on column report.pair.attempt is 'Number of the download attempt that counts, from 1: which download of its batch';
comment on column report.pair.removed is 'Whether a removal names its URL or its image';
comment on column report.pair.link_kind is 'image, audio, video or document; only images are downloaded';

create view report.score as
select mill.sample_id(s.batch_id, s.n) as sample_id, s.batch_id, s.n, m.name as model, m.pretrained,
       o.name as outcome, s.similarity, s.text_tokens
  from mill.current_score s
  join mill.model m using (model_id)
  join mill.score_outcome o on o.code = s.outcome;
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
select mill.sample_id(g.batch_id, g.n) as sample_id, g.batch_id, g.n, m.name as model, g.value, m.labels[g.label + 1] as label, g.text
  from mill.current_tag g
  join mill.model m using (model_id);
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
select mill.sample_id(d.batch_id, d.n) as sample_id, d.batch_id, d.n, p.url, x.signal, x.value, x.source, x.read_at
  from mill.current_download d
  join mill.opt_out x on x.batch_id = d.batch_id and x.n = d.n and x.attempt = d.attempt
  join mill.pair p on p.batch_id = d.batch_id and p.n = d.n;
comment on view report.opt_out is 'Pairs that were not collected since their site or page opted out, with its words. Name a range of batch_id.';
comment on column report.opt_out.sample_id is 'As report.pair.sample_id';
comment on column report.opt_out.batch_id is 'As report.pair.batch_id';
comment on column report.opt_out.n is 'As report.pair.n';
comment on column report.opt_out.url is 'The URL of the image';
comment on column report.opt_out.signal is 'robots.txt, tdmrep.json, ai.txt; a header: X-Robots-Tag, Robots-Tag, tdm-reservation, Content-Usage, Content-Signal; or an element of the page: meta robots, …';
comment on column report.opt_out.value is 'The rule that forbids';
comment on column report.opt_out.source is 'The URL that the rule was read from';
comment on column report.opt_out.read_at is 'When it was read; of a page, when it was crawled';

create view report.dead_link as
select mill.sample_id(d.batch_id, d.n) as sample_id, d.batch_id, d.n, p.url, o.name as outcome, f.networks, f.networks >= 2 as believed
  from mill.current_download d
  join mill.outcome o on o.code = d.outcome and o.name not in ('success', 'opted_out', 'opt_out_unknown')
  join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
 cross join lateral (
       select count(distinct w.network) as networks
         from mill.download x
         join mill.submission s using (submission_id)
         join mill.task t using (task_id)
         join mill.worker w on w.worker_id = s.worker_id
        where x.batch_id = d.batch_id and x.n = d.n and x.outcome not in (0, 50, 51)
          -- a replica's rows count for this view alone
          and (t.is_replica or not exists (select from mill.withdrawn z where z.submission_id = x.submission_id))) f;
comment on view report.dead_link is
    'Pairs that gave no image, and how many networks found none. Name a range of batch_id: there may be billions.';
comment on column report.dead_link.sample_id is 'As report.pair.sample_id';
comment on column report.dead_link.batch_id is 'As report.pair.batch_id';
comment on column report.dead_link.n is 'As report.pair.n';
comment on column report.dead_link.url is 'The URL';
comment on column report.dead_link.outcome is 'How its download ended';
comment on column report.dead_link.networks is 'Networks of workers, as admins named them, that found no image';
comment on column report.dead_link.believed is 'Whether two networks found none: one network''s trouble is shared by all in it';

create view report.pair_count as
select coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs, b.link_kind
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 4;
comment on view report.pair_count is 'Pairs by language and outcome of their download. Reads every pair.';
comment on column report.pair_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair_count.outcome is 'Outcome of the download; waiting while it has not ended';
comment on column report.pair_count.pairs is 'How many pairs';
comment on column report.pair_count.link_kind is 'image, audio, video or document; only images are downloaded';

create view report.score_count as
select m.name as model, coalesce(p.language, 'nolang') as language,
       coalesce(o.name, case when c.whole or d.attempt = any (c.attempts) then 'waiting' else 'not_queued' end) as outcome, count(*) as pairs
  from mill.pair p
  join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n and d.outcome = 0
  join mill.model m on m.kind = 'clip'
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
  left join mill.scoring_to_come c on c.batch_id = p.batch_id and c.model_id = m.model_id
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
   and (s.n is not null or m.retired_at is null)
 group by 1, 2, 3;
comment on view report.score_count is
    'Downloaded pairs by model, language and outcome of their scoring; of a retired model only those that it tried. Reads every pair.';
comment on column report.score_count.model is 'Name of the model';
comment on column report.score_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.score_count.outcome is
    'scored, or why not; waiting while a task will score it; not_queued where none will: its thumbnails are gone (`pairmill model backfill`), or its '
    'task was discarded or parked (`pairmill task retry`)';
comment on column report.score_count.pairs is 'How many pairs';

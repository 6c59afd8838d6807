-- Views for researchers and dashboards. Each is named after its row.

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

create view report.wrong_thumbnail as
select w.name as worker, count(*) as thumbnails, count(*) filter (where s.outcome = 3) as wrong
  from mill.current_score s
  join mill.download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
  join mill.submission u on u.submission_id = d.submission_id
  join mill.worker w on w.worker_id = u.worker_id
  join mill.model m on m.model_id = s.model_id and m.kind = 'clip'
 group by w.worker_id, w.name;
comment on view report.wrong_thumbnail is
    'Thumbnails by download worker, and how many of them show something else than the image whose hash came with them. Reads every score.';
comment on column report.wrong_thumbnail.worker is 'The download worker';
comment on column report.wrong_thumbnail.thumbnails is 'Its thumbnails that were scored, once for each model';
comment on column report.wrong_thumbnail.wrong is 'Of those, the ones whose dHash is far from the hash that came with them';

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

create view report.wat as
select f.wat_id, f.location, c.name as crawl,
       t.state, t.attempts, t.reason,
       n.records, n.links, n.dropped, n.duplicates, n.pairs, n.bad_records, n.ended_early, f.link_kinds, n.languages, n.attributes
  from mill.wat_file f
  left join mill.crawl c using (crawl_id)
  join mill.task t on t.wat_id = f.wat_id and t.kind = 'extract'
  left join lateral (
      select sum(count) filter (where stage = 'records')::bigint as records,
             sum(count) filter (where stage = 'links')::bigint as links,
             (select jsonb_object_agg(d.name, d.count) from (
                  select name, sum(count) as count from mill.wat_count d where d.wat_id = f.wat_id and stage = 'dropped' group by name) d) as dropped,
             sum(count) filter (where stage = 'duplicate')::bigint as duplicates,
             sum(count) filter (where stage = 'pair')::bigint as pairs,
             jsonb_object_agg(name, count) filter (where stage = 'bad_record') as bad_records,
             min(name) filter (where stage = 'ended_early') as ended_early,
             (select jsonb_object_agg(coalesce(nullif(l.name, ''), 'nolang'), l.count) from (
                  select name, sum(count) as count from mill.wat_count l where l.wat_id = f.wat_id and stage = 'pair' group by name) l) as languages,
             (select jsonb_object_agg(a.name, a.count) from (
                  select name, sum(count) as count from mill.wat_count a where a.wat_id = f.wat_id and stage = 'attribute' group by name) a) as attributes
        from mill.wat_count w where w.wat_id = f.wat_id
  ) n on true;
comment on view report.wat is 'WAT files with the counts of their extraction: links = dropped + duplicates + pairs.';
comment on column report.wat.wat_id is 'Key';
comment on column report.wat.location is 'Path or URL';
comment on column report.wat.crawl is 'The crawl that it belongs to, if any';
comment on column report.wat.state is 'ready, leased, submitted, done or discarded';
comment on column report.wat.attempts is 'How often a lease of its extraction failed or was lost, or the submission was rejected';
comment on column report.wat.reason is 'Reason of the last failure';
comment on column report.wat.records is 'WARC records read';
comment on column report.wat.links is 'Links of its kinds seen';
comment on column report.wat.dropped is 'Links dropped, by reason';
comment on column report.wat.duplicates is 'Links whose URL was known already, from this file or another';
comment on column report.wat.pairs is 'Links that became pairs';
comment on column report.wat.bad_records is 'Records that could not be read, by kind';
comment on column report.wat.ended_early is 'Why the rest of the file could not be read; null where it could';
comment on column report.wat.link_kinds is 'Kinds of links that are extracted of it';
comment on column report.wat.languages is 'Pairs by language; nolang where CLD3 is not sure';
comment on column report.wat.attributes is 'Links kept in the file, by the attribute that gave their URL: src, data-src, srcset and so on';

create view report.crawl as
select coalesce(c.name, '') as crawl, f.wat_files, n.records, n.links, n.dropped, n.duplicates, n.pairs, n.languages, n.bad_records, n.attributes
  from (select crawl_id, jsonb_object_agg(state, files) as wat_files
          from (select coalesce(f.crawl_id, 0) as crawl_id, t.state, count(*) as files
                  from mill.wat_file f join mill.task t on t.wat_id = f.wat_id and t.kind = 'extract' group by 1, 2) s
         group by crawl_id) f
  left join mill.crawl c using (crawl_id)
  left join lateral (
      select coalesce(sum(count) filter (where stage = 'records'), 0)::bigint as records,
             coalesce(sum(count) filter (where stage = 'links'), 0)::bigint as links,
             coalesce(jsonb_object_agg(name, count) filter (where stage = 'dropped'), '{}') as dropped,
             coalesce(sum(count) filter (where stage = 'duplicate'), 0)::bigint as duplicates,
             coalesce(sum(count) filter (where stage = 'pair'), 0)::bigint as pairs,
             coalesce(jsonb_object_agg(coalesce(nullif(name, ''), 'nolang'), count) filter (where stage = 'pair'), '{}') as languages,
             coalesce(jsonb_object_agg(name, count) filter (where stage = 'bad_record'), '{}') as bad_records,
             coalesce(jsonb_object_agg(name, count) filter (where stage = 'attribute'), '{}') as attributes
        from (select stage, name, sum(count) as count from mill.crawl_count w where w.crawl_id = f.crawl_id
               group by stage, name having sum(count) > 0) w
  ) n on true;
comment on view report.crawl is 'Crawls with the counts of their WAT files'' extraction: links = dropped + duplicates + pairs.';
comment on column report.crawl.crawl is 'CC-MAIN-YYYY-WW; empty for the files that were added alone';
comment on column report.crawl.wat_files is 'WAT files by state: ready, leased, submitted, done or discarded';
comment on column report.crawl.records is 'WARC records read';
comment on column report.crawl.links is 'Links of its kinds seen';
comment on column report.crawl.dropped is 'Links dropped, by reason';
comment on column report.crawl.duplicates is 'Links whose URL was known already';
comment on column report.crawl.pairs is 'Links that became pairs';
comment on column report.crawl.languages is 'Pairs by language; nolang where CLD3 is not sure';
comment on column report.crawl.bad_records is 'Records that could not be read, by kind';
comment on column report.crawl.attributes is 'As report.wat.attributes';

create view report.link_count as
select stage, name, sum(count)::bigint as count, link_kind from mill.crawl_count group by stage, name, link_kind having sum(count) > 0;
comment on view report.link_count is 'Counts of all extractions: links = dropped + duplicate + pair.';
comment on column report.link_count.stage is 'files, records, links, bad_record, ended_early, dropped, duplicate, attribute or pair';
comment on column report.link_count.name is 'Within the stage: drop reason, kind of bad record, attribute, language; else empty';
comment on column report.link_count.count is 'How many';
comment on column report.link_count.link_kind is 'image, audio, video or document; empty for files and records';

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
select m.name as model, coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n and d.outcome = 0
  join mill.model m on m.kind = 'clip'
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 3;
comment on view report.score_count is 'Downloaded pairs by model, language and outcome of their scoring. Reads every pair.';
comment on column report.score_count.model is 'Name of the model';
comment on column report.score_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.score_count.outcome is 'scored, or why not; waiting while it has not been tried';
comment on column report.score_count.pairs is 'How many pairs';

create view report.task as
select t.task_id, t.kind, t.state, t.wat_id, t.batch_id, t.attempt, m.name as model, t.attempts, t.ready_at, t.reason, t.changed_at,
       w.name as worker, l.expires_at as lease_expires_at, t.item_id
  from mill.task t
  left join mill.model m using (model_id)
  left join mill.lease l on l.task_id = t.task_id and l.ended_at is null
  left join mill.instance i on i.instance_id = l.instance_id
  left join mill.worker w on w.worker_id = i.worker_id;
comment on view report.task is 'Every task, with the worker that holds it.';
comment on column report.task.task_id is 'Key';
comment on column report.task.kind is 'The kind of work: extract, download, score and so on';
comment on column report.task.state is 'ready, leased, submitted, done or discarded';
comment on column report.task.wat_id is 'The WAT file that it is about';
comment on column report.task.batch_id is 'The batch that it is about';
comment on column report.task.attempt is 'Which download of the batch, from 1, as in report.pair.attempt; how often this task failed is attempts';
comment on column report.task.model is 'The model, of a kind that needs one';
comment on column report.task.attempts is
    'How often a lease of this task failed or was lost, or a submission was rejected; which download of the batch it is: attempt';
comment on column report.task.ready_at is 'Earliest time of the next claim';
comment on column report.task.reason is 'Reason of the last failure';
comment on column report.task.changed_at is 'When its state changed last';
comment on column report.task.worker is 'The worker that holds its lease';
comment on column report.task.lease_expires_at is 'When that lease will be late';
comment on column report.task.item_id is 'The item that it is about; see report.item';

create view report.item as
select i.item_id, i.kind, i.spec, t.state, t.attempts, t.reason, r.result, i.added_at
  from mill.item i
  join mill.task t on t.item_id = i.item_id and t.kind = i.kind
  left join mill.item_result r on r.item_id = i.item_id
        and not exists (select from mill.withdrawn w where w.submission_id = r.submission_id);
comment on view report.item is 'Items, subjects of tasks that are neither WAT files nor batches, with the result that counts.';
comment on column report.item.item_id is 'Key';
comment on column report.item.kind is 'The kind of work';
comment on column report.item.spec is 'The work to do, as JSON of the kind''s own form';
comment on column report.item.state is 'ready, leased, submitted, done or discarded';
comment on column report.item.attempts is 'How often a lease of its task failed or was lost, or the submission was rejected';
comment on column report.item.reason is 'Reason of the last failure';
comment on column report.item.result is 'The result, as JSON of the kind''s own form; null while none counts';
comment on column report.item.added_at is 'When it was added';

create view report.worker as
select w.name, w.kind, w.added_at, w.disabled_at,
       (select max(i.started_at) from mill.instance i where i.worker_id = w.worker_id) as started_at,
       (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) as live_leases,
       coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0)::bigint as rows_accepted,
       w.network, w.proven_at, w.streak, w.agreement, w.stopped_because
  from mill.worker w
  left join mill.submission s using (worker_id)
  left join mill.withdrawn x using (submission_id)
 group by w.worker_id;
comment on view report.worker is 'Workers, with the number of rows accepted from each.';
comment on column report.worker.name is 'Display name';
comment on column report.worker.kind is 'Kind of login: extract, download, score and so on claim tasks; a steward claims none';
comment on column report.worker.added_at is 'When it was added';
comment on column report.worker.disabled_at is 'When it was disabled; null while it may work';
comment on column report.worker.started_at is 'When its newest process started';
comment on column report.worker.live_leases is 'Tasks that it holds now';
comment on column report.worker.rows_accepted is 'Rows accepted and not withdrawn: links, outcomes or scores';
comment on column report.worker.network is 'The network that it connects from, in the admin''s words';
comment on column report.worker.proven_at is 'When the worker was proven: others rely on the robots.txt that it read; null while it is not';
comment on column report.worker.streak is 'Replications in a row that agreed; null: an admin vouches for it, and it is not checked';
comment on column report.worker.agreement is 'Share of its replicated downloads that others found alike, a moving average';
comment on column report.worker.stopped_because is 'Reason, if replication stopped it and not an admin; else null';

create view report.replication as
select r.replication_id, w.name as worker, t.batch_id, t.attempt,
       case when r.replica_task_id is null then 'gold_questions' else 'replica' end as kind,
       r.state, r.compared, r.agreed, r.opened_at, r.decided_at
  from mill.replication r
  join mill.worker w using (worker_id)
  join mill.task t using (task_id);
comment on view report.replication is 'Checks of workers'' downloads, by a replica or by gold questions.';
comment on column report.replication.replication_id is 'Key';
comment on column report.replication.worker is 'The checked worker';
comment on column report.replication.batch_id is 'The batch whose download is checked';
comment on column report.replication.attempt is 'Which download of the batch, as in report.pair.attempt';
comment on column report.replication.kind is 'replica: another worker''s repeat of a sample; gold_questions: URLs with known answers';
comment on column report.replication.state is 'open, disputed (a third worker decides), agreed, failed or void (nothing could be told)';
comment on column report.replication.compared is 'URLs that could be compared';
comment on column report.replication.agreed is 'Of those, URLs that ended alike';
comment on column report.replication.opened_at is 'When it was drawn';
comment on column report.replication.decided_at is 'When it was decided';

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

create view report.model as
select m.name, m.pretrained, m.digest, m.dims, m.active_since, m.kind, b.name as base, m.labels, m.revision, m.licence, m.metrics, m.retired_at
  from mill.model m
  left join mill.model b on b.model_id = m.base_model_id;
comment on view report.model is 'The models that score, and the taggers.';
comment on column report.model.name is 'open_clip''s model name, the folder of a model, or a tagger''s name';
comment on column report.model.pretrained is 'open_clip''s tag or a checkpoint''s path; empty where the name says it all';
comment on column report.model.digest is 'sha256 of the weights';
comment on column report.model.dims is 'Length of an embedding';
comment on column report.model.active_since is 'Since when new batches are scored by it';
comment on column report.model.kind is 'clip, or of a tagger: head, zero-shot (both read embeddings) or pixels';
comment on column report.model.base is 'A tagger''s CLIP model';
comment on column report.model.labels is 'zero-shot: names of the categories';
comment on column report.model.revision is 'Version of the weights';
comment on column report.model.licence is 'Licence of the weights; empty where none was given';
comment on column report.model.metrics is 'Metrics on held-out data';
comment on column report.model.retired_at is 'When it was retired and scores nothing more; null while it is active';

create view report.queue as
select k.kind,
       count(*) filter (where t.state = 'ready') as ready,
       count(*) filter (where t.state = 'leased') as leased,
       count(*) filter (where t.state = 'submitted') as submitted,
       count(*) filter (where t.state = 'discarded') as discarded,
       count(*) filter (where t.state = 'done') as done,
       min(t.ready_at) filter (where t.state = 'ready') as oldest_ready_at,
       (select count(*) from mill.lease l join mill.task x using (task_id)
         where x.kind = k.kind and l.ended_at is null and l.expires_at <= now()) as late_leases,
       (select count(*) from mill.submission s join mill.task x using (task_id)
         where x.kind = k.kind and s.state = 'received') as waiting_submissions
  from (select name as kind from mill.task_kind) k
  left join mill.task t on t.kind = k.kind
 group by k.kind;
comment on view report.queue is 'The depth of the queue, by kind of work. Reads every task.';
comment on column report.queue.kind is 'The kind of work: extract, download, score and so on';
comment on column report.queue.ready is 'Tasks that may be claimed, now or after a back-off';
comment on column report.queue.leased is 'Tasks that a worker holds';
comment on column report.queue.submitted is 'Tasks that await the acceptance of what was submitted';
comment on column report.queue.discarded is 'Tasks that were given up';
comment on column report.queue.done is 'Tasks that are done';
comment on column report.queue.oldest_ready_at is 'Since when the oldest ready task may be claimed';
comment on column report.queue.late_leases is 'Leases whose time is over and that no steward has ended yet';
comment on column report.queue.waiting_submissions is 'Submissions that no steward has accepted or rejected yet';

create view report.rate as
select date_trunc('hour', s.decided_at) as hour, t.kind, count(*) as submissions, sum(s.row_count)::bigint as rows
  from mill.submission s
  join mill.task t using (task_id)
 where s.state = 'accepted' and s.decided_at > now() - interval '2 days'
   and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
 group by 1, 2;
comment on view report.rate is 'Submissions and rows accepted in each hour of the last two days.';
comment on column report.rate.hour is 'The hour''s beginning';
comment on column report.rate.kind is 'The kind of work: extract, download, score and so on';
comment on column report.rate.submissions is 'Submissions accepted and not withdrawn';
comment on column report.rate.rows is 'Their rows: links, outcomes or scores';

create view report.leaderboard as
select rank() over (order by u.urls desc) as rank, u.name, u.urls, u.urls_last_day
  from (select w.name, sum(s.row_count)::bigint as urls,
               coalesce(sum(s.row_count) filter (where s.decided_at > now() - interval '1 day'), 0)::bigint as urls_last_day
          from mill.worker w
          join mill.submission s using (worker_id)
         where w.kind = 'download' and s.state = 'accepted'
           and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)
         group by w.worker_id) u;
comment on view report.leaderboard is 'Download workers by the URLs that were accepted from them and still count.';
comment on column report.leaderboard.rank is '1 for the worker with most URLs';
comment on column report.leaderboard.name is 'The worker''s name';
comment on column report.leaderboard.urls is 'URLs accepted and not withdrawn';
comment on column report.leaderboard.urls_last_day is 'Of these, in the last 24 hours';

create view report.table_size as
select n.nspname || '.' || coalesce(p.relname, c.relname) as "table",
       count(*) as partitions,
       sum(pg_total_relation_size(c.oid))::bigint as bytes,
       sum(s.n_live_tup)::bigint as live_rows,
       sum(s.n_dead_tup)::bigint as dead_rows,
       max(s.last_autovacuum) as last_autovacuum
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_inherits i on i.inhrelid = c.oid
  left join pg_class p on p.oid = i.inhparent
  left join pg_stat_all_tables s on s.relid = c.oid
 where n.nspname in ('mill', 'inbox') and c.relkind = 'r'
 group by 1;
comment on view report.table_size is 'Tables with their partitions, indexes and TOAST; rows as the statistics estimate them.';
comment on column report.table_size."table" is 'Schema and name';
comment on column report.table_size.partitions is '1 for a table without partitions';
comment on column report.table_size.bytes is 'On disk, with indexes and TOAST';
comment on column report.table_size.live_rows is 'Estimate of the rows';
comment on column report.table_size.dead_rows is 'Estimate of the rows that wait for a vacuum';
comment on column report.table_size.last_autovacuum is 'Last autovacuum of any of the partitions';

create function api.metrics_v1() returns table (kind text, what text, value double precision)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    return query
    select q.kind, x.what, x.value::double precision
      from report.queue q,
           lateral (values ('ready', q.ready), ('leased', q.leased), ('submitted', q.submitted), ('discarded', q.discarded), ('done', q.done),
                           ('late_leases', q.late_leases), ('waiting_submissions', q.waiting_submissions),
                           ('oldest_ready_seconds', greatest(0, extract(epoch from now() - q.oldest_ready_at))::bigint)) x (what, value)
    union all
    select 'thumbnails', 'slots_in_use', count(*)::double precision from mill.thumbnail_slot where state <> 'empty';
end
$$;
comment on function api.metrics_v1 is 'The queue in numbers, for the steward''s metrics.';

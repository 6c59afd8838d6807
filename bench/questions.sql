-- Many pairs with all that may become of them, made in the tables themselves: by acceptance 1.5 million would take an hour.
-- Batches many.first up to, not including, many.last, each of many.pairs pairs, and as many WAT files. Repeatable: each choice
-- is a hash of its pair's number. Run again with later batches, as statistics of a tenth want it.
--
-- Of each batch: 10 submissions of its first download, one of a retry, one of a replica; 20 of scores by each model. Every
-- 17th submission is withdrawn, and its URLs are in the retry. Every tenth batch is not downloaded yet; the second model has
-- scored every other batch. Every seventh batch is of audio links.

create or replace function pg_temp.r(key bigint, salt bigint) returns double precision
language sql immutable
as $$ select (hashint8extended(key, salt) & 1048575) / 1048576.0 $$;

insert into mill.crawl (name) values ('CC-MAIN-2021-04'), ('CC-MAIN-2022-40') on conflict do nothing;
insert into mill.wat_file (crawl_id, location)
select 1 + w % 2, format('crawl-data/CC-MAIN/segments/%s.warc.wat.gz', w)
  from generate_series(1 + current_setting('many.first')::integer, current_setting('many.last')::integer) w;
insert into mill.worker (login, name, kind, network)
select 'many_' || k || i, k || ' ' || i, k, 'network ' || i % 3
  from unnest(array['extract', 'download', 'score']) k, generate_series(1, 4) i on conflict do nothing;
insert into mill.instance (worker_id, version, protocol) select worker_id, '0.1.0', 1 from mill.worker where current_setting('many.first') = '0';
insert into mill.model (name, pretrained, digest, dims, kind, base_model_id, labels, weights) values
    ('ViT-B-32', 'openai', 'm1', 4, 'clip', null, null, null), ('xlm-roberta', '', 'm2', 4, 'clip', null, null, null),
    ('aesthetic', '', 'm3', 4, 'head', 1, null, 'w'), ('nsfw', '', 'm4', 4, 'zero-shot', 1, '{neutral,nsfw}', 'w')
on conflict do nothing;
insert into mill.batch (batch_id, bucket, pair_count, closed_at, link_kind)
select b, b % 32, current_setting('many.pairs')::integer, now() - make_interval(hours => 1000 - b),
       case when b % 7 = 6 then 'audio' else 'image' end
  from generate_series(current_setting('many.first')::integer, current_setting('many.last')::integer - 1) b;
select setval(pg_get_serial_sequence('mill.batch', 'batch_id'), current_setting('many.last')::integer);
select mill.ensure_partitions(g), mill.ensure_partitions(g, 'wat_id') from generate_series(current_setting('many.first')::integer, current_setting('many.last')::integer, 500) g;

-- tasks: every third WAT file was extracted twice, and the first extraction withdrawn
insert into mill.task (kind, state, wat_id) select 'extract', 'done', wat_id from mill.wat_file where wat_id > current_setting('many.first')::integer order by wat_id;
insert into mill.task (kind, state, batch_id, attempt, is_replica)
select 'download', case when b.batch_id % 10 < 9 then 'done' else 'ready' end, b.batch_id, a.attempt, a.attempt = 3
  from mill.batch b, generate_series(1, 3) a (attempt)
 where b.batch_id >= current_setting('many.first')::integer and b.link_kind = 'image' and (a.attempt = 1 or b.batch_id % 10 < 9)
 order by b.batch_id, a.attempt;
insert into mill.task (kind, state, batch_id, attempt, model_id)
select 'score', 'done', t.batch_id, t.attempt, m.model_id
  from mill.task t, mill.model m
 where t.kind = 'download' and t.state = 'done' and not t.is_replica and t.batch_id >= current_setting('many.first')::integer and m.kind = 'clip' and (m.model_id = 1 or t.batch_id % 2 = 0)
 order by t.task_id, m.model_id;
insert into mill.lease (lease_id, task_id, instance_id, worker_id, expires_at, deadline, ended_at, ended_as)
select (1::bigint << 40) + nextval('mill.lease_number'), t.task_id, i.instance_id, i.worker_id, t.ready_at, t.ready_at, t.ready_at, 'completed'
  from mill.task t
  join lateral (select i.* from mill.instance i join mill.worker w using (worker_id)
                 where w.kind = t.kind order by i.instance_id offset t.task_id % 4 limit 1) i on true
 where t.state = 'done' and (t.wat_id > current_setting('many.first')::integer or t.batch_id >= current_setting('many.first')::integer) order by t.task_id;
insert into mill.submission (task_id, lease_id, part, worker_id, state, row_count, received_at, decided_at)
select t.task_id, l.lease_id, p, l.worker_id, 'accepted', 0, d.day, d.day
  from mill.task t join mill.lease l using (task_id),
       generate_series(0, case t.kind when 'extract' then case when t.wat_id % 3 = 0 then 1 else 0 end
                                      when 'download' then case when t.attempt = 1 then 9 else 0 end else 19 end) p,
       lateral (select now() - make_interval(days => 30 - (t.task_id % 30)::integer) as day) d
 where t.wat_id > current_setting('many.first')::integer or t.batch_id >= current_setting('many.first')::integer
 order by t.task_id, p;
insert into mill.withdrawn (submission_id, reason)
select s.submission_id, case when t.is_replica then 'a replica' else 'wrong' end
  from mill.submission s join mill.task t using (task_id)
 where (t.is_replica
    or case t.kind when 'extract' then t.wat_id % 3 = 0 and s.part = 0
                   when 'download' then t.attempt = 1 and s.submission_id % 17 = 0 or t.attempt = 2 and t.batch_id % 11 = 0
                   else s.submission_id % 17 = 0 end)
   and (t.wat_id > current_setting('many.first')::integer or t.batch_id >= current_setting('many.first')::integer);
analyze mill.task, mill.submission, mill.withdrawn, mill.batch;

create temp table extraction as
select t.wat_id, s.submission_id, w.submission_id is not null as is_withdrawn
  from mill.submission s join mill.task t using (task_id) left join mill.withdrawn w using (submission_id) where t.kind = 'extract' and t.wat_id > current_setting('many.first')::integer;
analyze extraction;

insert into mill.pair (batch_id, n, page, wat_id, submission_id, url_key, url, text, language, language_probability, license)
select b.batch_id, n, floor(1000 * pg_temp.r(k, 2))::integer, e.wat_id, e.submission_id, md5(u.url)::uuid, u.url,
       (array['a red bicycle', 'Sonnenuntergang am See', 'photo of a cat', 'Rathaus', 'logo'])[1 + floor(5 * pg_temp.r(k, 3))::integer] || ' ' || k,
       nullif((array['en', 'en', 'en', 'en', 'de', 'fr', 'ja', 'ru', 'es', ''])[1 + floor(10 * pg_temp.r(k, 4))::integer], ''),
       pg_temp.r(k, 5), case when pg_temp.r(k, 6) < 0.03 then 'https://creativecommons.org/licenses/by/4.0/' end
  from mill.batch b,
       generate_series(0, current_setting('many.pairs')::integer - 1) n,
       lateral (select b.batch_id << 14 | n as k) key,
       lateral (select 1 + current_setting('many.first')::integer + floor((current_setting('many.last')::integer - current_setting('many.first')::integer) * pg_temp.r(k, 1))::bigint as wat_id) w,
       lateral (select x.* from extraction x where x.wat_id = w.wat_id and x.is_withdrawn = (w.wat_id % 3 = 0 and pg_temp.r(k, 7) < 0.1)) e,
       -- few hosts have many links: LAION's own spread is about as steep
       lateral (select format('https://host%s.example/images/%s/picture.jpg', floor(exp(ln(5000) * pg_temp.r(k, 8))), k) as url) u
 where b.batch_id >= current_setting('many.first')::integer
 order by b.batch_id, n;
analyze mill.pair;
insert into mill.seen_url (url_key, batch_id, n)
select p.url_key, p.batch_id, p.n from mill.pair p join extraction e using (submission_id) where not e.is_withdrawn and p.batch_id >= current_setting('many.first')::integer order by p.url_key;
insert into mill.page (wat_id, submission_id, page, url, crawled_at)
select distinct p.wat_id, p.submission_id, p.page, format('https://site%s.example/%s/%s', p.page % 97, p.wat_id, p.page), now() - interval '3 years'
  from mill.pair p where p.batch_id >= current_setting('many.first')::integer order by 1, 2, 3;

-- the first download; what a page refuses came with the extraction
create temp table first_download as
select t.batch_id, s.submission_id, s.part, w.submission_id is not null as is_withdrawn
  from mill.submission s join mill.task t using (task_id) left join mill.withdrawn w using (submission_id)
 where t.kind = 'download' and t.attempt = 1 and t.batch_id >= current_setting('many.first')::integer;
analyze first_download;
insert into mill.download (batch_id, n, attempt, outcome, http_status, bytes, width, height, md5, sha256, dhash, submission_id)
select p.batch_id, p.n, 1, o.outcome, case when o.outcome in (0, 40) then 200 when o.outcome = 31 then 404 end,
       case when o.outcome = 0 then 1000 + floor(200000 * pg_temp.r(k, 11))::integer end,
       case when o.outcome = 0 then 100 + floor(1900 * pg_temp.r(k, 12))::integer end,
       case when o.outcome = 0 then 100 + floor(1400 * pg_temp.r(k, 13))::integer end,
       -- an image in twenty is one of a few hundred that are everywhere
       case when o.outcome = 0 then md5(i.image::text)::uuid end, case when o.outcome = 0 then sha256(i.image::text::bytea) end,
       case when o.outcome = 0 then hashint8extended(i.image, 14) end,
       case when o.by_page then p.submission_id else d.submission_id end
  from mill.pair p
  join first_download d on d.batch_id = p.batch_id and d.part = p.n * 10 / current_setting('many.pairs')::integer,
       lateral (select p.batch_id << 14 | p.n as k) key,
       lateral (select case when pg_temp.r(k, 9) < 0.05 then floor(300 * pg_temp.r(k, 10))::bigint else k end as image) i,
       lateral (select pg_temp.r(k, 15) < 0.02 as by_page,
                       (case when pg_temp.r(k, 15) < 0.02 then 50 when pg_temp.r(k, 15) < 0.05 then 50 when pg_temp.r(k, 15) < 0.15 then 31
                             when pg_temp.r(k, 15) < 0.2 then 20 when pg_temp.r(k, 15) < 0.25 then 40 else 0 end)::smallint as outcome) o
 where p.batch_id >= current_setting('many.first')::integer
 order by p.batch_id, p.n;
analyze mill.download;
-- the retry: a failure in five, and what was withdrawn; two in five succeed
insert into mill.download (batch_id, n, attempt, outcome, http_status, bytes, width, height, md5, sha256, dhash, submission_id)
select d.batch_id, d.n, 2, o.outcome, case when o.outcome = 0 then 200 else 404 end, case when o.outcome = 0 then 50000 + d.n end,
       case when o.outcome = 0 then 640 end, case when o.outcome = 0 then 480 end, case when o.outcome = 0 then md5(k::text)::uuid end,
       case when o.outcome = 0 then sha256(k::text::bytea) end, case when o.outcome = 0 then k end, s.submission_id
  from mill.download d
  join mill.task t on t.kind = 'download' and t.batch_id = d.batch_id and t.attempt = 2
  join mill.submission s using (task_id)
  left join first_download f on f.submission_id = d.submission_id,
       lateral (select d.batch_id << 14 | d.n as k) key,
       lateral (select (case when pg_temp.r(k, 21) < 0.4 then 0 else 31 end)::smallint as outcome) o
 where d.batch_id >= current_setting('many.first')::integer and (f.is_withdrawn or d.outcome not in (0, 50) and pg_temp.r(k, 22) < 0.2)
 order by d.batch_id, d.n;
-- the replica: of fifty positions
insert into mill.download (batch_id, n, attempt, outcome, http_status, submission_id)
select t.batch_id, n, 3, 31, 404, s.submission_id
  from mill.task t join mill.submission s using (task_id), generate_series(0, current_setting('many.pairs')::integer - 1, current_setting('many.pairs')::integer / 50) n
 where t.is_replica and t.kind = 'download' and t.batch_id >= current_setting('many.first')::integer order by t.batch_id, n;
insert into mill.opt_out (batch_id, n, attempt, signal, value, source, read_at, submission_id)
select d.batch_id, d.n, d.attempt, (array['robots.txt', 'X-Robots-Tag', 'tdm-reservation', 'meta robots'])[1 + d.n % 4], 'noimageai',
       'https://host.example/robots.txt', now(), d.submission_id
  from mill.download d where d.outcome = 50 and d.batch_id >= current_setting('many.first')::integer order by 1, 2, 3;

-- scores of both models, some twice since the first was withdrawn
create temp table scoring as
select t.batch_id, t.attempt, t.model_id, s.submission_id, s.part, w.submission_id is not null as is_withdrawn
  from mill.submission s join mill.task t using (task_id) left join mill.withdrawn w using (submission_id)
 where t.kind = 'score' and t.batch_id >= current_setting('many.first')::integer;
analyze scoring;
insert into mill.score (batch_id, n, attempt, model_id, outcome, similarity, submission_id, text_tokens)
select d.batch_id, d.n, d.attempt, g.model_id, case when pg_temp.r(k, 31) < 0.01 then 1 else 0 end,
       case when pg_temp.r(k, 31) < 0.01 then null else (0.1 + 0.25 * pg_temp.r(k, 32 + g.model_id))::real end, g.submission_id, 8
  from mill.download d
  join scoring g on g.batch_id = d.batch_id and g.attempt = d.attempt
   and (g.part = d.n * 19 / current_setting('many.pairs')::integer or g.part = 19 and exists (
        select from scoring x where x.batch_id = g.batch_id and x.attempt = g.attempt and x.model_id = g.model_id and x.is_withdrawn
           and x.part = d.n * 19 / current_setting('many.pairs')::integer)),
       lateral (select d.batch_id << 14 | d.n as k) key
 where d.outcome = 0 and d.batch_id >= current_setting('many.first')::integer and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
 order by d.batch_id, d.n;
insert into mill.tag (batch_id, model_id, attempt, n, label, value, submission_id)
select s.batch_id, m.model_id, s.attempt, s.n, case when m.kind = 'zero-shot' then s.n % 2 end, pg_temp.r(s.batch_id << 14 | s.n, m.model_id), s.submission_id
  from mill.score s join mill.model m on m.base_model_id = s.model_id where s.outcome = 0 and s.batch_id >= current_setting('many.first')::integer
 order by s.batch_id, m.model_id, s.attempt, s.n;
-- one pair in 500 is removed, a release has looked at all, and the history goes back a year
insert into mill.removal (source, md5, reason, found_at)
select format('https://removed.example/%s', i), md5(i::text)::uuid, 'reason ' || i % 3, now() from generate_series(1, 200) i
on conflict do nothing;
insert into mill.removed_pair (batch_id, n, removal_id)
select p.batch_id, p.n, (select min(removal_id) from mill.removal) + p.n / 500 from mill.pair p where p.batch_id >= current_setting('many.first')::integer and p.n % 500 = 7;
insert into mill.release (name, version, recipe, manifest_sha256, candidates, kept, excluded, unfinished, words)
select 'laion-400m', 1, '{}', '', 0, 0, '{}', '{}', '{kept,similarity,not_downloaded}' where not exists (select from mill.release);
insert into mill.release_batch (batch_id, release_id, decisions)
select b.batch_id, r.release_id, d.decisions
  from mill.release r, mill.batch b,
       lateral (select string_agg(set_byte('\x00', 0, 1 + (b.batch_id + i)::integer % 3), '' order by i) as decisions
                  from generate_series(0, b.pair_count - 1) i) d
 where b.batch_id >= current_setting('many.first')::integer;
insert into mill.daily_count (day, stage, link_kind, model_id, name, count)
select current_date - d, 'download', '', 0, o.name, 10000 + d from generate_series(0, 365) d, mill.outcome o
on conflict do nothing;
drop table extraction, first_download, scoring;

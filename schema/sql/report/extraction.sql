-- Views of WAT files and crawls, with the counts of their extraction.

create view report.wat as
select f.wat_id, f.location, c.name as crawl,
       t.state, t.attempts, t.reason,
       n.records, n.links, n.dropped, n.duplicates, n.pairs, n.bad_records, n.ended_early, f.link_kinds, f.language_detector, n.languages, n.attributes
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
  ) n on true
 where f.removed_at is null;
comment on view report.wat is 'WAT files with the counts of their extraction: links = dropped + duplicates + pairs.';
comment on column report.wat.wat_id is 'Key';
comment on column report.wat.location is 'Path or URL';
comment on column report.wat.crawl is 'The crawl that it belongs to, if any';
comment on column report.wat.state is 'ready, leased, submitted, done, discarded or parked';
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
comment on column report.wat.language_detector is 'Detector of the languages of its texts: cld3 or fasttext';
comment on column report.wat.languages is 'Pairs by language; nolang where the detector is not sure';
comment on column report.wat.attributes is 'Links kept in the file, by the attribute that gave their URL: src, data-src, srcset and so on';

create view report.crawl as
select coalesce(c.name, '') as crawl, f.wat_files, n.records, n.links, n.dropped, n.duplicates, n.pairs, n.languages, n.bad_records, n.attributes
  from (select crawl_id, jsonb_object_agg(state, files) as wat_files
          from (select d.crawl_id, 'done' as state, d.count as files from mill.done d where d.kind = 'extract' and d.crawl_id >= 0
                union all
                select coalesce(f.crawl_id, 0), t.state, count(*)
                  from mill.undone t join mill.wat_file f using (wat_id)
                 where t.kind = 'extract' and f.removed_at is null group by 1, 2) s
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
comment on column report.crawl.wat_files is 'WAT files by state: ready, leased, submitted, done, discarded or parked';
comment on column report.crawl.records is 'WARC records read';
comment on column report.crawl.links is 'Links of its kinds seen';
comment on column report.crawl.dropped is 'Links dropped, by reason';
comment on column report.crawl.duplicates is 'Links whose URL was known already';
comment on column report.crawl.pairs is 'Links that became pairs';
comment on column report.crawl.languages is 'Pairs by language; nolang where the detector is not sure';
comment on column report.crawl.bad_records is 'Records that could not be read, by kind';
comment on column report.crawl.attributes is 'As report.wat.attributes';

create view report.link_count as
select stage, name, sum(count)::bigint as count, link_kind from mill.crawl_count group by stage, name, link_kind having sum(count) > 0;
comment on view report.link_count is 'Counts of all extractions: links = dropped + duplicate + pair.';
comment on column report.link_count.stage is 'files, records, links, bad_record, ended_early, dropped, duplicate, attribute, pair, or opted_out: of the pairs, those whose page opts out';
comment on column report.link_count.name is 'Within the stage: drop reason, kind of bad record, attribute, language, signal; else empty';
comment on column report.link_count.count is 'How many';
comment on column report.link_count.link_kind is 'image, audio, video or document; empty for files and records';

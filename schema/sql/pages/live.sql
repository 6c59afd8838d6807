-- Rights of <db>_live: the public page of the line's progress. It reads counters, the tasks that are not done, and of workers the
-- names of those whose owners said so. Each function is a view's rows, for a login that may read no view.

create function api.show_name_v1(p_shown boolean) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
begin
    if not coalesce(p_shown, false) then
        delete from mill.shown_worker s where s.worker_id = w.worker_id;
    elsif not exists (select from mill.shown_worker s where s.worker_id = w.worker_id) then
        insert into mill.shown_worker (worker_id) values (w.worker_id) on conflict do nothing;
    end if;
    return w.name;
end
$$;
comment on function api.show_name_v1 is 'The calling worker wants to be named on the public page, or no more. Returns its name.';

create function api.live_links_v1() returns table (link_kind text, stage text, name text, count bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select l.link_kind, l.stage, l.name, l.count from report.link_count l where l.stage <> 'attribute' order by l.count desc, l.name
$$;
comment on function api.live_links_v1 is 'Counts of all extractions, as report.link_count, without attributes.';

create function api.live_pairs_v1() returns table (language text, outcome text, pairs bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.language, p.outcome, sum(p.pairs)::bigint
      from report.pair_count p where p.link_kind = 'image'
     group by grouping sets ((p.language), (p.outcome)) order by 3 desc, 1, 2
$$;
comment on function api.live_pairs_v1 is 'Pairs of images by language (outcome is null), and by outcome (language is null).';

create function api.live_scores_v1() returns table (model text, outcome text, pairs bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.model, s.outcome, s.pairs from mill.scored s order by s.model, s.outcome
$$;
comment on function api.live_scores_v1 is 'Pairs by model and outcome of their score.';

create function api.live_models_v1() returns table (model text, pretrained text, active_since timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select m.name, m.pretrained, m.active_since from mill.model m where m.kind = 'clip' and m.retired_at is null order by m.model_id
$$;
comment on function api.live_models_v1 is 'The CLIP models that score every image.';

create function api.live_crawls_v1() returns table (
    crawl text, wat_files jsonb, records bigint, links bigint, dropped jsonb, duplicates bigint, pairs bigint, languages jsonb, bad_records jsonb
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.crawl, c.wat_files, c.records, c.links, c.dropped, c.duplicates, c.pairs, c.languages, c.bad_records from report.crawl c order by c.crawl
$$;
comment on function api.live_crawls_v1 is 'Crawls with the counts of their files'' extraction, as report.crawl.';

create function api.live_queue_v1() returns table (
    kind text, ready bigint, leased bigint, submitted bigint, discarded bigint, parked bigint, done bigint, oldest_ready_at timestamptz,
    late_leases bigint, waiting_submissions bigint, workers bigint, workers_here bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select q.kind, q.ready, q.leased, q.submitted, q.discarded, q.parked, q.done, q.oldest_ready_at, q.late_leases, q.waiting_submissions,
           coalesce(s.workers, 0), coalesce(s.here, 0)
      from report.queue q
      join mill.task_kind k on k.name = q.kind
      left join (select w.kind, count(*) as workers, count(*) filter (where w.seen_at > now() - interval '10 minutes') as here
                   from mill.worker_seen w group by w.kind) s on s.kind = k.worker_kind
     order by array_position(mill.kinds_of_code(), q.kind), q.kind
$$;
comment on function api.live_queue_v1 is
    'The depth of the queue by kind of work, as report.queue, and the workers that may claim it: how many ever came, and how many were seen in the last '
    'ten minutes.';

create function api.live_ring_v1() returns table (slots bigint, used bigint, batches bigint, is_full boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select count(*), count(*) filter (where s.state <> 'empty'), coalesce(sum(s.batches), 0)::bigint, coalesce(bool_and(s.state = 'full'), false)
      from mill.thumbnail_slot s
$$;
comment on function api.live_ring_v1 is 'The ring of thumbnails.';

-- The row of now, and for each window the last one before it began; where none is that old, the oldest.
create function api.live_progress_v1() returns table (
    seconds integer, at timestamptz, files bigint, links bigint, pairs bigint, fetched bigint, succeeded bigint, scored bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select 0, now(), t.files, t.links, t.pairs, t.fetched, t.succeeded, t.scored from mill.total t
    union all
    select w.seconds, p.*
      from (values (3600), (86400), (604800)) w (seconds)
     cross join lateral (select * from ((select * from mill.progress x where x.at <= now() - make_interval(secs => w.seconds) order by x.at desc limit 1)
                                        union all
                                        (select * from mill.progress x order by x.at limit 1)) y order by y.at desc limit 1) p
$$;
comment on function api.live_progress_v1 is 'How far the line has come now (seconds is 0), and an hour, a day and a week ago; where that is not known, at the beginning.';

create function api.live_hours_v1() returns table (
    at timestamptz, files bigint, links bigint, pairs bigint, fetched bigint, succeeded bigint, scored bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select distinct on (mill.hour(p.at)) p.* from mill.progress p order by mill.hour(p.at), p.at
$$;
comment on function api.live_hours_v1 is 'How far the line had come at the beginning of each hour of the last eight days.';

create function api.live_opt_outs_v1() returns table (by text, signal text, count bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select case d.stage when 'opted_out' then 'page' else 'site' end, d.name, sum(d.count)::bigint
      from mill.daily_count d where d.stage in ('opted_out', 'opt_out') group by d.stage, d.name order by 3 desc, 1, 2
$$;
comment on function api.live_opt_outs_v1 is 'Opt-outs as they came in, by their signal: of pages, and of sites and responses.';

create function api.live_releases_v1() returns table (name text, version integer, built_at timestamptz, candidates bigint, kept bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select r.name, r.version, r.built_at, r.candidates, r.kept from report.release r where r.is_newest order by r.built_at desc limit 100
$$;
comment on function api.live_releases_v1 is 'The newest record of each release: 100 of them at most.';

create function api.live_people_v1() returns table (
    name text, kind text, rank bigint, ranked bigint, rows bigint, rows_last_day bigint, tasks_last_day bigint, checks bigint, agreement real, added_at timestamptz,
    last_seen_at timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with everybody as materialized (
        select w.worker_id, w.name, w.kind, w.added_at, w.agreement, coalesce(c.rows, 0) as rows, coalesce(c.checks, 0) as checks,
               case when c.rows > 0 then rank() over (partition by w.kind order by coalesce(c.rows, 0) desc) end as rank,
               count(*) filter (where c.rows > 0) over (partition by w.kind) as ranked
          from mill.worker w left join mill.credited c using (worker_id)
    )
    select e.name, e.kind, e.rank, e.ranked, e.rows, coalesce(d.rows, 0), coalesce(d.tasks, 0), e.checks,
           case when exists (select from mill.replication r where r.worker_id = e.worker_id and r.state in ('agreed', 'failed')) then e.agreement end,
           e.added_at, (select max(i.last_seen_at) from mill.instance i where i.worker_id = e.worker_id)
      from everybody e
      join mill.shown_worker s using (worker_id)
      left join mill.credited_last_day d using (worker_id)
     order by e.rows desc, e.name limit 10000
$$;
comment on function api.live_people_v1 is
    'Workers whose owners want to be named: 10,000 at most, those with most rows. rank of ranked: the place among all workers of the kind that had rows '
    'accepted, named or not.';

create function api.live_anonymous_v1() returns table (kind text, workers bigint, rows bigint, rows_last_day bigint, checks bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select w.kind, count(*), sum(c.rows)::bigint, coalesce(sum(d.rows), 0)::bigint, sum(c.checks)::bigint
      from mill.worker w join mill.credited c using (worker_id) left join mill.credited_last_day d using (worker_id)
     where not exists (select from mill.shown_worker s where s.worker_id = w.worker_id) and c.rows > 0
     group by w.kind order by w.kind
$$;
comment on function api.live_anonymous_v1 is 'All other workers that had rows accepted, together by kind.';

do $$
declare
    role constant text := left(current_database(), 40) || '_live';
    kind text;
    f text;
begin
    execute format('grant usage on schema api to %I', role);
    foreach f in array array['links', 'pairs', 'scores', 'models', 'crawls', 'queue', 'ring', 'progress', 'hours', 'opt_outs', 'releases', 'people', 'anonymous'] loop
        execute format('grant execute on function api.%I to %I', 'live_' || f || '_v1', role);
    end loop;
    for kind in select name from mill.worker_kind loop
        perform mill.allow(kind, 'api.show_name_v1');
    end loop;
end
$$;

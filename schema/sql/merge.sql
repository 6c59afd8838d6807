-- The merge: tells new links of an extraction from known ones, and deals them over open batches.

-- Number of batches that new pairs are dealt over: expected pairs / batch_size, rounded up, at most open_batches_max.
create function mill.open_batches(p_link_kind text, new_pairs bigint) returns integer
language sql stable
as $$
    select greatest(1, least(s.open_batches_max, ceil((new_pairs + waiting.files * coalesce(known.pairs_per_wat, s.pairs_per_wat)) / s.batch_size)))::integer
      from mill.setting s,
           -- extractions to come, without the one that is being accepted; a thousand are as good as more
           lateral (select greatest(count(*) - 1, 0) as files
                      from (select from mill.task where kind = 'extract' and state in ('ready', 'leased', 'submitted') limit 1000) t) waiting,
           lateral (select sum(c.count) filter (where c.stage = 'pair' and c.link_kind = p_link_kind)
                           / nullif(sum(c.count) filter (where c.stage = 'files'), 0) as pairs_per_wat
                      from mill.crawl_count c) known
$$;
comment on function mill.open_batches is 'Number of buckets over which the new pairs of a kind of link are dealt, with those still to come.';

-- The new URLs of one extraction: first of its key in the file (and one of 5 characters before any that only weighs as
-- much, or a recipe that counts characters would lose the URL), not removed, never seen, dealt over
-- buckets by hash. Read only from the sender's own rows.
-- work_mem: 50,000 rows of a file are sorted twice; on disk that took a sixth of the merge.
-- plan_cache_mode: only a plan made for this array looks keys up in it by a hash; a generic one, which a
-- session may turn to after five merges, would compare each row with each of its tens of thousands of keys.
--
-- unknown: null, or the keys that a filter in front of seen_url has never seen. Those are not looked up;
-- the others are (trusted false), or are taken for known without a look (trusted true).
create function mill.stage_merge(
    s mill.submission, unknown uuid[], trusted boolean,
    out link_kinds text[], out staged bigint[], out removed bigint[]
)
language plpgsql
set work_mem = '64MB'
set plan_cache_mode = 'force_custom_plan'
as $$
declare
    sender name := (select login from mill.worker where worker_id = s.worker_id);
    buckets integer[];
    found_rows bigint;
    refused uuid[];
begin
    truncate mill.merge_row;
    perform mill.hold_removals();
    refused := array(select mill.removed_keys(s.lease_id, sender));
    select array_agg(i.link_kind), array_agg(i.rows), array_agg(i.removed), array_agg(mill.open_batches(i.link_kind, i.rows))
      into link_kinds, staged, removed, buckets
      from (select link_kind, count(*) as rows,
                   count(*) filter (where url_key = any (refused)) as removed
              from inbox.pair
             where lease_id = s.lease_id and worker = sender
             group by link_kind) i;
    select coalesce(sum(n), 0) into found_rows from unnest(staged) n;
    if s.row_count <> found_rows then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, found_rows));
    end if;
    insert into mill.merge_row (bucket, place, url_key, url, text, language, language_probability, license, link_kind, page)
    select k.bucket, row_number() over (partition by f.link_kind, k.bucket order by f.url_key) - 1,
           f.url_key, f.url, f.text, f.language, f.language_probability, f.license, f.link_kind, f.page
      from (select distinct on (i.url_key) i.*
              from inbox.pair i
             where i.lease_id = s.lease_id and i.worker = sender
             order by i.url_key, length(i.text) < 5, i.ordinal) f,
           lateral (select get_byte(uuid_send(f.url_key), 15) % buckets[array_position(link_kinds, f.link_kind)] as bucket) k
     where f.url_key <> all (refused)
       and case when unknown is null then not exists (select from mill.seen_url k where k.url_key = f.url_key)
                else f.url_key = any (unknown)
                     or not trusted and not exists (select from mill.seen_url k where k.url_key = f.url_key) end;
end
$$;
comment on function mill.stage_merge is
    'Fills mill.merge_row with an extraction''s new URLs, dealt over buckets; counts what was staged and removed, by link kind.';

create function mill.open_batch(p_link_kind text, p_bucket integer) returns bigint
language plpgsql
as $$
declare
    id bigint;
begin
    insert into mill.batch (link_kind, bucket) values (p_link_kind, p_bucket) returning batch_id into id;
    perform mill.ensure_partitions(id);
    return id;
end
$$;
comment on function mill.open_batch is 'Opens a batch for a bucket.';

create function mill.close_batch(p_batch_id bigint) returns void
language sql
as $$
    update mill.batch set closed_at = now() where batch_id = p_batch_id and closed_at is null;
    insert into mill.task (kind, batch_id)
    select 'download', batch_id from mill.batch where batch_id = p_batch_id and link_kind = 'image';
$$;
comment on function mill.close_batch is 'Closes a batch and, for images, makes its download task.';

-- Turns mill.merge_row into pairs: dealt by hash, so that every batch mixes hosts and WAT files.
-- enable_nestloop: of an inbox that autovacuum saw empty one row is expected, and then a nested loop, which reads all new rows
-- for each of thousands of pages, costs the planner as little as a hash join.
create function mill.assign_to_batches(s mill.submission, t mill.task) returns void
language plpgsql
set enable_nestloop = off
as $$
declare
    size constant integer := (select batch_size from mill.setting);
    sender constant name := (select login from mill.worker where worker_id = s.worker_id);
    share record;
    b mill.batch;
    dealt_kind text[] := '{}';
    dealt_bucket integer[] := '{}';
    dealt_first integer[] := '{}';  -- place of the bucket's row that is n = 0; negative in a batch that was begun before
    dealt_batch bigint[] := '{}';
    next_place integer;
begin
    -- in order of id, as every function that locks several batches
    perform from mill.batch where closed_at is null order by batch_id for update;
    for share in
        select link_kind, bucket, count(*)::integer as rows from mill.merge_row group by link_kind, bucket order by link_kind, bucket
    loop
        next_place := 0;
        while next_place < share.rows loop
            select * into b from mill.batch where closed_at is null and link_kind = share.link_kind and bucket = share.bucket;
            if not found then
                b.batch_id := mill.open_batch(share.link_kind, share.bucket);
                b.pair_count := 0;
            end if;
            dealt_kind := dealt_kind || share.link_kind;
            dealt_bucket := dealt_bucket || share.bucket::integer;
            dealt_first := dealt_first || (next_place - b.pair_count);
            dealt_batch := dealt_batch || b.batch_id;
            update mill.batch set pair_count = least(size, b.pair_count + share.rows - next_place), dealt_at = now()
             where batch_id = b.batch_id;
            next_place := next_place + size - b.pair_count;
            if next_place <= share.rows then
                perform mill.close_batch(b.batch_id);
            end if;
        end loop;
    end loop;
    with dealt as (
        insert into mill.pair (batch_id, n, page, wat_id, submission_id, url_key, url, text, language, language_probability, license)
        select d.batch_id, m.place - d.first, m.page, t.wat_id, s.submission_id,
               m.url_key, m.url, m.text, m.language, m.language_probability, m.license
          from mill.merge_row m
          join unnest(dealt_kind, dealt_bucket, dealt_first, dealt_batch) as d (link_kind, bucket, first, batch_id)
            on d.link_kind = m.link_kind and d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
        returning url_key, batch_id, n
    )
    insert into mill.seen_url (url_key, batch_id, n) select url_key, batch_id, n from dealt order by url_key;
    perform mill.ensure_partitions(t.wat_id, 'wat_id');
    insert into mill.page (wat_id, submission_id, crawled_at, page, url)
    select t.wat_id, s.submission_id, g.crawled_at, g.page, g.url
      from inbox.page g
     where g.lease_id = s.lease_id and g.worker = sender and g.page in (select m.page from mill.merge_row m);
    -- what a page refuses is refused here, before any worker could ask for it
    with refused as (
        select d.batch_id, m.place - d.first as n, g.opt_out_signal, g.opt_out_value, g.url, g.crawled_at
          from inbox.page g
          join mill.merge_row m on m.page = g.page
          join unnest(dealt_kind, dealt_bucket, dealt_first, dealt_batch) as d (link_kind, bucket, first, batch_id)
            on d.link_kind = m.link_kind and d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
         where g.lease_id = s.lease_id and g.worker = sender and g.opt_out_signal is not null
    ), evidence as (
        insert into mill.opt_out (batch_id, n, attempt, signal, value, source, read_at, submission_id)
        select batch_id, n, 1, opt_out_signal, opt_out_value, coalesce(url, ''), coalesce(crawled_at, now()), s.submission_id from refused
    )
    insert into mill.download (batch_id, n, attempt, outcome, submission_id)
    select batch_id, n, 1, 50, s.submission_id from refused;
    perform mill.count_dealt(s, sender, size, dealt_kind, dealt_bucket, dealt_first, dealt_batch);
end
$$;
comment on function mill.assign_to_batches is
    'Turns the staged new URLs into pairs of the open batches, and keeps their pages; full batches are closed. '
    'A pair whose page opts out is opted_out at once, with its evidence.';

-- Called at every merge and withdrawal, under the lock that merges hold.
create function mill.count_crawl(p_submission_id bigint, sign integer) returns void
language sql
as $$
    insert into mill.crawl_count as c (crawl_id, link_kind, stage, name, count)
    select coalesce(f.crawl_id, 0), w.link_kind, w.stage,
           case when w.stage = 'ended_early' then regexp_replace(w.name, '^after \d+ records: ', '') else w.name end,
           sign * sum(w.count)
      from (select wat_id, link_kind, stage, name, count from mill.wat_count where submission_id = p_submission_id
            union all
            (select wat_id, '', 'files', '', 1 from mill.wat_count where submission_id = p_submission_id limit 1)) w
      join mill.wat_file f using (wat_id)
     group by 1, 2, 3, 4
    on conflict (crawl_id, link_kind, stage, name) do update set count = c.count + excluded.count
$$;
comment on function mill.count_crawl is 'Adds (sign 1) or subtracts (-1) the counts of an extraction in crawl_count.';

create function mill.merge_extraction(s mill.submission, t mill.task, unknown uuid[], trusted boolean) returns void
language plpgsql
as $$
declare
    m record;
begin
    lock table mill.seen_url in share row exclusive mode;  -- one merge at a time
    if not mill.probe_holds(s.lease_id) then
        perform mill.refuse('23000', 'an extraction was withdrawn after this one was told of known URLs, which may be new again: the file is asked for again');
    end if;
    perform nextval('mill.merge_number');
    select * into m from mill.stage_merge(s, unknown, trusted);
    perform mill.assign_to_batches(s, t);
    insert into mill.wat_count (submission_id, wat_id, link_kind, stage, name, count)
    select s.submission_id, t.wat_id, c.link_kind, c.stage, c.name, sum(c.count)
      from (select x.link_kind, x.stage, x.name, x.count
              from mill.submission_extract e,
                   unnest(e.link_kind, e.stage, e.name, e.count) as x (link_kind, stage, name, count)
             where e.submission_id = s.submission_id
            union all
            select r.link_kind, 'pair', coalesce(r.language, ''), count(*) from mill.merge_row r group by r.link_kind, r.language
            union all
            select r.link_kind, 'opted_out', g.opt_out_signal, count(*)
              from inbox.page g join mill.merge_row r on r.page = g.page
             where g.lease_id = s.lease_id and g.worker = (select login from mill.worker where worker_id = s.worker_id) and g.opt_out_signal is not null
             group by r.link_kind, g.opt_out_signal
            union all
            (with fresh as (
                 select link_kind, count(*) as rows from mill.merge_row group by link_kind
             )
             select k.link_kind, x.stage, x.name, x.count
               from unnest(m.link_kinds, m.staged, m.removed) as k (link_kind, rows, removed)
               left join fresh using (link_kind),
                    lateral (values ('dropped', 'removed', k.removed),
                                    ('duplicate', '', k.rows - k.removed - coalesce(fresh.rows, 0))) as x (stage, name, count)
              where x.count > 0)) c
     group by c.link_kind, c.stage, c.name;
    perform mill.count_crawl(s.submission_id, 1);
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from inbox.pair where lease_id = s.lease_id;
    delete from inbox.page where lease_id = s.lease_id;
end
$$;
comment on function mill.merge_extraction is 'Merges an extraction: dedupes it against every known URL, deals the new links over batches, counts the rest.';

-- p_unknown: the URL keys, 16 bytes each, of the extraction p_submission_id that a filter in step at p_merge_number has
-- never seen. Used only where that submission is the next and no merge came between: else every key is looked up.
create function api.accept_filtered_v1(
    p_submission_id bigint, p_merge_number bigint, p_unknown bytea, p_trusted boolean,
    out submission_id bigint, out kind text, out row_count integer, out rejected_because text, out filtered boolean
)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s constant mill.submission := mill.next_submission();
    t mill.task;
begin
    if s.submission_id is null then
        return;
    end if;
    select * into t from mill.task x where x.task_id = s.task_id;
    submission_id := s.submission_id;
    kind := t.kind;
    row_count := s.row_count;
    filtered := false;
    if t.kind = 'extract' and s.state = 'received' and s.submission_id = p_submission_id then
        lock table mill.seen_url in share row exclusive mode;  -- the number stands still from here on
        -- one that will be rejected is no fault of the filter, which would be built again
        if p_merge_number = (select last_value from mill.merge_number) and mill.probe_holds(s.lease_id) then
            begin
                perform mill.merge_extraction(s, t, array(
                    select encode(substr(p_unknown, 1 + 16 * i, 16), 'hex')::uuid from generate_series(0, length(p_unknown) / 16 - 1) i), p_trusted);
                perform mill.record_acceptance(s, t, null);
                filtered := true;
            exception when data_exception or integrity_constraint_violation then
                -- a wrong filter is no fault of the submission: all its keys are looked up next
                filtered := null;
            end;
            return next;
            return;
        end if;
    end if;
    rejected_because := mill.accept(s);
    return next;
end
$$;
comment on function api.accept_filtered_v1 is
    'accept_next_v1 with the URL keys of the next extraction that a filter in front of mill.seen_url has never seen. '
    'filtered: whether p_unknown was used; null where it was wrong, and nothing was accepted.';

-- Three calls that make a steward's filter and keep it in step: a filter that was made at merge_number n holds
-- every key as long as the sequence still stands at n.
create function api.merge_number_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    -- waits for a merge that has its number and is not committed: the next read of the table sees its keys
    lock table mill.seen_url in share row exclusive mode;
    return (select last_value from mill.merge_number);
end
$$;
comment on function api.merge_number_v1 is 'Number of the newest merge or withdrawal: changes whenever mill.seen_url may have.';

create function api.known_keys_v1(p_remainder integer) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    return query execute format('select url_key from mill.%I', 'seen_url_h' || lpad(p_remainder::text, 2, '0'));
end
$$;
comment on function api.known_keys_v1 is 'The keys of one of the 16 partitions of mill.seen_url.';

create function api.staged_keys_v1(out submission_id bigint, out merge_number bigint, out keys bytea) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    return query
        select s.submission_id, (select last_value from mill.merge_number),
               (select string_agg(uuid_send(i.url_key), null) from inbox.pair i
                 where i.lease_id = s.lease_id and i.worker = (select login from mill.worker x where x.worker_id = s.worker_id))
          from (select * from mill.submission x where x.state = 'received' order by x.submission_id limit 1) s
          join mill.task t using (task_id)
         where t.kind = 'extract';
end
$$;
comment on function api.staged_keys_v1 is
    'If the next submission to accept is an extraction: its number, the newest merge''s, and its URL keys, 16 bytes each.';

-- An extraction that failed before, or was lost in an outage, may fail again for hours: it holds nothing up.
create view mill.awaited_extraction as
select task_id, wat_id, state, changed_at from mill.task
 where kind = 'extract' and state in ('ready', 'leased', 'submitted') and attempts = 0 and excused = 0 and ready_at <= now();
comment on view mill.awaited_extraction is 'The extractions whose pairs open batches wait for.';
comment on column mill.awaited_extraction.task_id is 'The task';
comment on column mill.awaited_extraction.wat_id is 'The WAT file';
comment on column mill.awaited_extraction.state is 'ready, leased or submitted';
comment on column mill.awaited_extraction.changed_at is 'When its state changed last';

create function api.close_batches_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    b mill.batch;
    closed integer := 0;
    everything boolean;
begin
    lock table mill.seen_url in share row exclusive mode;  -- no merge is dealing
    everything := not exists (select from mill.awaited_extraction);
    for b in
        select x.* from mill.batch x, mill.setting s
         where x.closed_at is null and x.pair_count > 0
           and (everything or x.opened_at < now() - make_interval(secs => s.batch_open_seconds)
                or x.dealt_at < now() - make_interval(secs => s.batch_idle_seconds))
         order by batch_id for update of x
    loop
        perform mill.close_batch(b.batch_id);
        closed := closed + 1;
    end loop;
    return closed;
end
$$;
comment on function api.close_batches_v1 is
    'Closes batches that are open for too long, or that no pair came into for a while, and all of them when no extraction is awaited: '
    'one that is ready, leased or awaiting acceptance and never failed.';

select mill.allow('steward', 'api.accept_filtered_v1', 'api.merge_number_v1', 'api.known_keys_v1', 'api.staged_keys_v1', 'api.close_batches_v1');

-- A WAT file gives more kinds of links than images, and what extraction counts is summed by crawl.

alter table mill.wat_file add column link_kinds text[] default '{image}' not null;
comment on column mill.wat_file.link_kinds is 'Which kinds of links are extracted: image, audio, video, document';

alter table mill.wat_count add column link_kind text default '' not null;
comment on column mill.wat_count.link_kind is 'The kind of links: image, audio, video, document; empty for counts of records';
comment on table mill.wat_count is 'What an accepted extraction counted.';
update mill.wat_count set link_kind = 'image' where stage in ('links', 'dropped', 'duplicate', 'pair');
alter table mill.wat_count drop constraint wat_count_pkey;
alter table mill.wat_count add constraint wat_count_pkey primary key (submission_id, link_kind, stage, name);

create table mill.crawl_count (
    crawl_id integer not null,
    link_kind text not null,
    stage text not null,
    name text not null,
    count bigint not null,
    constraint crawl_count_pkey primary key (crawl_id, link_kind, stage, name)
) with (fillfactor = 50);
comment on table mill.crawl_count is 'The sums of wat_count over a crawl, kept at every acceptance and withdrawal.';
comment on column mill.crawl_count.crawl_id is 'The crawl; 0 for files that were added alone';
comment on column mill.crawl_count.link_kind is 'The kind of links: image, audio, video, document; empty for counts of records';
comment on column mill.crawl_count.stage is 'As wat_count.stage, and files: those that were extracted';
comment on column mill.crawl_count.name is 'As wat_count.name; of ended_early only the reason';
comment on column mill.crawl_count.count is 'How many';

alter table mill.batch add column link_kind text default 'image' not null;
comment on column mill.batch.link_kind is 'The kind of links that it holds; image is the one that is downloaded';
drop index mill.batch_open_idx;
create unique index batch_open_idx on mill.batch (link_kind, bucket) where closed_at is null;

alter table mill.submission_extract add column link_kind text[];
update mill.submission_extract e
   set link_kind = array(select case when s in ('links', 'dropped') then 'image' else '' end
                           from unnest(e.stage) with ordinality u (s, place) order by place);
alter table mill.submission_extract alter column link_kind set not null;
comment on column mill.submission_extract.link_kind is 'As wat_count.link_kind';

alter table inbox.pair add column link_kind text default 'image' not null;
comment on column inbox.pair.link_kind is 'As batch.link_kind';

truncate mill.merge_row;  -- a scratch: each merge empties it first
alter table mill.merge_row add column link_kind text not null;
comment on column mill.merge_row.link_kind is 'As inbox.pair.link_kind';

drop function mill.open_batches(bigint);
drop function mill.stage_merge(mill.submission, integer);
drop function mill.open_batch(integer);
drop function mill.close_batch(bigint);
drop function mill.deal(mill.submission, mill.task);
drop function mill.accept_extract(mill.submission, mill.task);
drop function mill.add_wat(text, text[]);

create function api.submit_extract_v2(
    p_lease_id bigint,
    p_rows integer,
    p_link_kind text[],
    p_stage text[],
    p_name text[],
    p_count bigint[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task;
    id bigint := mill.submitted_before(p_lease_id, 0);
    rows_of jsonb;
    wrong record;
begin
    -- asked first: the first call ended the lease, and its answer may have been lost
    if id is not null and exists (
        select from mill.submission s where s.submission_id = id and s.worker_id = (mill.me('extract')).worker_id) then
        return id;
    end if;
    t := mill.held(p_lease_id, 'extract');
    if exists (
        select from unnest(p_link_kind, p_stage, p_name, p_count) as x (k, s, n, c)
         where k is null or s is null or n is null or c is null or c < 0 or length(n) > 200
            or s not in ('records', 'links', 'bad_record', 'ended_early', 'dropped', 'duplicate')
            or (s in ('links', 'dropped', 'duplicate')) <> (k <> '')
            or k <> '' and k <> all ((select f.link_kinds from mill.wat_file f where f.wat_id = t.wat_id)::text[])
            or s = 'dropped' and not exists (select from mill.drop_reason d where d.name = x.n)
    ) then
        perform mill.refuse('PM003', 'a count is malformed: an unknown stage, link kind or drop reason, or a negative number');
    end if;
    select coalesce(jsonb_object_agg(r.link_kind, r.n), '{}') into rows_of
      from (select i.link_kind, count(*) as n from inbox.pair i
             where i.lease_id = p_lease_id and i.worker = session_user group by i.link_kind) r;
    if p_rows is distinct from (select coalesce(sum(value::bigint), 0) from jsonb_each_text(rows_of)) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s', p_rows, p_lease_id));
    end if;
    select kind, c.links, coalesce((rows_of ->> kind)::bigint, 0) as kept, c.gone into wrong
      from (select k, sum(n) filter (where s = 'links') as links, coalesce(sum(n) filter (where s <> 'links'), 0) as gone
              from unnest(p_link_kind, p_stage, p_count) as x (k, s, n) where k <> '' group by k) c
      full join jsonb_object_keys(rows_of) r (kind0) on r.kind0 = c.k,
           lateral (select coalesce(c.k, r.kind0) as kind) named
     where c.links is distinct from coalesce((rows_of ->> kind)::bigint, 0) + coalesce(c.gone, 0)
     limit 1;
    if found then
        perform mill.refuse('PM003', format('the counts do not add up: %s %s links are not %s kept and %s dropped or duplicates',
                                            coalesce(wrong.links, 0), wrong.kind, wrong.kept, coalesce(wrong.gone, 0)));
    end if;
    id := mill.receive(t, p_lease_id, 0, p_rows);
    insert into mill.submission_extract (submission_id, link_kind, stage, name, count)
    values (id, p_link_kind, p_stage, p_name, p_count);
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    return id;
end
$$;
comment on function api.submit_extract_v2 is
    'Hands over what was copied into inbox.pair under this lease, with its counts, and ends the lease. Idempotent. '
    'Refused unless of every kind links = rows + dropped + duplicates.';

create or replace function api.submit_extract_v1(
    p_lease_id bigint,
    p_rows integer,
    p_stage text[],
    p_name text[],
    p_count bigint[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('extract');
begin
    if exists (select from mill.lease l join mill.task t using (task_id) join mill.wat_file f using (wat_id)
                where l.lease_id = p_lease_id and f.link_kinds <> '{image}') then
        perform mill.refuse('PM004', 'this worker takes images only, and its WAT file is to give more: upgrade Pairmill');
    end if;
    return api.submit_extract_v2(
        p_lease_id, p_rows,
        array(select case when s in ('links', 'dropped') then 'image' else '' end
                from unnest(p_stage) with ordinality u (s, place) order by place),
        p_stage, p_name, p_count);
end
$$;
comment on function api.submit_extract_v1 is 'submit_extract_v2 for workers that extract images only.';

-- How many batches new pairs are dealt over: expected pairs / batch_size, rounded up, at most open_batches_max.
create function mill.open_batches(p_link_kind text, new_pairs bigint) returns integer
language sql stable
as $$
    select greatest(1, least(s.open_batches_max, ceil((new_pairs + waiting.files * coalesce(known.pairs_per_wat, s.pairs_per_wat)) / s.batch_size)))::integer
      from mill.setting s,
           -- all but the one that is being accepted; a thousand are as good as more
           lateral (select greatest(count(*) - 1, 0) as files
                      from (select from mill.task where kind = 'extract' and state in ('ready', 'leased', 'submitted') limit 1000) t) waiting,
           lateral (select sum(c.count) filter (where c.stage = 'pair' and c.link_kind = p_link_kind)
                           / nullif(sum(c.count) filter (where c.stage = 'files'), 0) as pairs_per_wat
                      from mill.crawl_count c) known
$$;
comment on function mill.open_batches is 'Number of buckets to deal these new pairs of a kind, and those still to come, over.';

-- The new URLs of one extraction: first of its key in the file, not removed, never seen, dealt over
-- buckets by hash. Read only from the sender's own rows: anybody who may COPY can name any lease.
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
begin
    truncate mill.merge_row;
    select array_agg(i.link_kind), array_agg(i.rows), array_agg(i.removed), array_agg(mill.open_batches(i.link_kind, i.rows))
      into link_kinds, staged, removed, buckets
      from (select link_kind, count(*) as rows,
                   count(*) filter (where exists (select from mill.removal r where r.md5 = url_key)) as removed
              from inbox.pair
             where lease_id = s.lease_id and worker = sender
             group by link_kind) i;
    select coalesce(sum(n), 0) into found_rows from unnest(staged) n;
    if s.row_count <> found_rows then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, found_rows));
    end if;
    insert into mill.merge_row (bucket, place, url_key, url, text, language, language_probability, license, link_kind)
    select k.bucket, row_number() over (partition by f.link_kind, k.bucket order by f.url_key) - 1,
           f.url_key, f.url, f.text, f.language, f.language_probability, f.license, f.link_kind
      from (select distinct on (i.url_key) i.*
              from inbox.pair i
             where i.lease_id = s.lease_id and i.worker = sender
             order by i.url_key, i.ordinal) f,
           lateral (select get_byte(uuid_send(f.url_key), 15) % buckets[array_position(link_kinds, f.link_kind)] as bucket) k
     where not exists (select from mill.removal r where r.md5 = f.url_key)
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
create function mill.deal(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    size constant integer := (select batch_size from mill.setting);
    share record;
    b mill.batch;
    dealt_kind text[] := '{}';
    dealt_bucket integer[] := '{}';
    dealt_first integer[] := '{}';  -- place of the bucket's row that is n = 0; negative in a batch that was begun before
    dealt_batch bigint[] := '{}';
    next_place integer;
begin
    -- in order of id: whoever else locks several batches does it in the same order
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
            update mill.batch set pair_count = least(size, b.pair_count + share.rows - next_place)
             where batch_id = b.batch_id;
            next_place := next_place + size - b.pair_count;
            if next_place <= share.rows then
                perform mill.close_batch(b.batch_id);
            end if;
        end loop;
    end loop;
    with dealt as (
        insert into mill.pair (batch_id, n, wat_id, submission_id, url_key, url, text, language, language_probability, license)
        select d.batch_id, m.place - d.first, t.wat_id, s.submission_id,
               m.url_key, m.url, m.text, m.language, m.language_probability, m.license
          from mill.merge_row m
          join unnest(dealt_kind, dealt_bucket, dealt_first, dealt_batch) as d (link_kind, bucket, first, batch_id)
            on d.link_kind = m.link_kind and d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
        returning url_key, batch_id, n
    )
    insert into mill.seen_url (url_key, batch_id, n) select url_key, batch_id, n from dealt order by url_key;
end
$$;
comment on function mill.deal is 'Turns the staged new URLs into pairs of the open batches; full batches are closed.';

-- crawl_count is kept here and in mill.withdraw, under the lock that merges hold.
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
comment on function mill.count_crawl is 'Adds (sign 1) or takes away (-1) what an extraction counted.';

create function mill.accept_extract(s mill.submission, t mill.task, unknown uuid[], trusted boolean) returns void
language plpgsql
as $$
declare
    m record;
begin
    lock table mill.seen_url in share row exclusive mode;  -- one merge at a time
    perform nextval('mill.merge_number');
    select * into m from mill.stage_merge(s, unknown, trusted);
    perform mill.deal(s, t);
    insert into mill.wat_count (submission_id, wat_id, link_kind, stage, name, count)
    select s.submission_id, t.wat_id, c.link_kind, c.stage, c.name, sum(c.count)
      from (select x.link_kind, x.stage, x.name, x.count
              from mill.submission_extract e,
                   unnest(e.link_kind, e.stage, e.name, e.count) as x (link_kind, stage, name, count)
             where e.submission_id = s.submission_id
            union all
            select r.link_kind, 'pair', coalesce(r.language, ''), count(*) from mill.merge_row r group by r.link_kind, r.language
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
end
$$;
comment on function mill.accept_extract is 'Merges an extraction: dedupes it against every known URL, deals what is new, counts the rest.';

create sequence mill.merge_number as bigint;
comment on sequence mill.merge_number is 'Rises with every merge and every withdrawal, before mill.seen_url changes.';
select nextval('mill.merge_number');  -- or the first merge would not change last_value

-- What a steward's filter is made of, and kept in step by: a filter that was made at merge_number n holds
-- every key as long as the sequence still stands at n.
create function api.merge_number_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    -- waits for a merge that has its number and is not committed: who reads the table next sees its keys
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

-- p_unknown: 16 bytes each, of the extraction p_submission_id, by a filter that was in step at p_merge_number. It is
-- used only where that is the next submission and no merge came between: else every key is looked up.
create function api.accept_next_v2(
    p_submission_id bigint, p_merge_number bigint, p_unknown bytea, p_trusted boolean,
    out submission_id bigint, out kind text, out row_count integer, out rejected_because text, out filtered boolean
)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s mill.submission;
    t mill.task;
    unknown uuid[];
begin
    -- unlocked look, then task before submission: the order in which every function locks
    select * into s from mill.submission x where x.state = 'received' order by x.submission_id limit 1;
    if not found then
        return;
    end if;
    select * into t from mill.task x where x.task_id = s.task_id for update;
    select * into s from mill.submission x where x.submission_id = s.submission_id for update;
    submission_id := s.submission_id;
    kind := t.kind;
    row_count := s.row_count;
    filtered := false;
    if s.state = 'received' then
        begin
            case t.kind
                when 'extract' then
                    lock table mill.seen_url in share row exclusive mode;  -- the number stands still from here on
                    if p_submission_id = s.submission_id and p_merge_number = (select last_value from mill.merge_number) then
                        filtered := true;
                        unknown := array(select encode(substr(p_unknown, 1 + 16 * i, 16), 'hex')::uuid
                                           from generate_series(0, length(p_unknown) / 16 - 1) i);
                    end if;
                    perform mill.accept_extract(s, t, unknown, p_trusted);
                when 'download' then perform mill.accept_download(s, t);
                when 'score' then perform mill.accept_score(s, t);
            end case;
            update mill.submission x set state = 'accepted', decided_at = now() where x.submission_id = s.submission_id;
            perform mill.settle(t.task_id);
        exception when data_exception or integrity_constraint_violation then
            -- a filter that was wrong after all is no fault of the submission's: it is looked up in full next
            if filtered then
                filtered := null;
                return next;
                return;
            end if;
            rejected_because := sqlerrm;
            perform mill.reject(s, sqlerrm);
        end;
    end if;
    return next;
end
$$;
comment on function api.accept_next_v2 is
    'Accepts the oldest received submission in one transaction: expands it into rows, credits it, ends its task. '
    'No row when nothing waits. Data that no constraint lets in is rejected, with the reason. '
    'filtered: whether p_unknown was used; null where it was wrong, and nothing was accepted.';

create or replace function api.accept_next_v1(out submission_id bigint, out kind text, out row_count integer, out rejected_because text)
returns setof record
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select a.submission_id, a.kind, a.row_count, a.rejected_because from api.accept_next_v2(null, null, null, false) a
$$;
comment on function api.accept_next_v1 is 'accept_next_v2 without a filter.';

create function mill.add_wat(p_crawl text, p_locations text[], p_link_kinds text[] default '{image}') returns integer
language sql
as $$
    with the_crawl as (
        insert into mill.crawl (name) select p_crawl where p_crawl is not null
        on conflict (name) do update set name = excluded.name
        returning crawl_id
    ), added as (
        insert into mill.wat_file (crawl_id, location, link_kinds)
        select (select crawl_id from the_crawl), l.location, p_link_kinds
          from (select location, min(ordinality) as place from unnest(p_locations) with ordinality u (location, ordinality)
                 group by location) l
         order by l.place
        on conflict (location) do nothing
        returning wat_id
    ), queued as (
        insert into mill.task (kind, wat_id) select 'extract', wat_id from added order by wat_id returning 1
    )
    select count(*)::integer from queued
$$;
comment on function mill.add_wat is 'Adds WAT files, and their extract tasks; those known already are left alone. Returns how many were new.';

-- What an accepted submission gave no longer counts, and is queued again.
create or replace function mill.withdraw(p_submission_id bigint, why text) returns void
language plpgsql
as $$
declare
    s mill.submission;
    t mill.task;
begin
    select x.* into t from mill.task x join mill.submission y using (task_id) where y.submission_id = p_submission_id for update of x;
    select * into s from mill.submission where submission_id = p_submission_id for update;
    if s.state is distinct from 'accepted' then
        perform mill.refuse('PM003', format('submission %s is not an accepted one', p_submission_id));
    end if;
    insert into mill.withdrawn (submission_id, reason) values (p_submission_id, why) on conflict do nothing;
    if not found then
        return;
    end if;
    case t.kind
        when 'extract' then
            -- its pairs stay, marked out; their URLs may come in again
            lock table mill.seen_url in share row exclusive mode;  -- as a merge does
            perform nextval('mill.merge_number');
            delete from mill.seen_url k using mill.pair p
             where p.submission_id = p_submission_id and k.url_key = p.url_key and k.batch_id = p.batch_id and k.n = p.n;
            perform mill.count_crawl(p_submission_id, -1);
            delete from mill.wat_count where submission_id = p_submission_id;
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id;
        when 'download' then
            -- scores of its thumbnails stop counting with it: they are of this attempt
            insert into mill.task (kind, batch_id, attempt, positions)
            select 'download', t.batch_id,
                   (select max(attempt) + 1 from mill.task where batch_id = t.batch_id and kind = 'download'),
                   array_agg(d.n order by d.n)
              from mill.download d
             where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = p_submission_id;
        when 'score' then
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id and state in ('done', 'parked');
    end case;
end
$$;
comment on function mill.withdraw is
    'Withdraws an accepted submission: nothing it gave counts any more, and its task is done again '
    '(a download as a new attempt at its positions).';

create or replace function api.claim_v1(
    p_instance_id bigint,
    p_model_digest text default null,
    out lease_id bigint,
    out task_id bigint,
    out payload jsonb
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    s mill.setting;
    t mill.task;
    m integer;
begin
    select * into s from mill.setting;
    if not exists (select from mill.instance i where i.instance_id = p_instance_id and i.worker_id = w.worker_id) then
        perform mill.refuse('PM003', format('instance %s is not this worker''s: call hello_v1 first', p_instance_id));
    end if;
    -- one worker's claims are counted one after another, or two at once would pass the limit together
    perform from mill.worker where worker_id = w.worker_id for no key update;
    if (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) >= s.leases_per_worker then
        perform mill.refuse('PM003', format('this login holds %s live leases, the most that it may', s.leases_per_worker));
    end if;
    if w.kind = 'score' then
        select model_id into m from mill.model where digest = p_model_digest;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights; an admin adds it with: pairmill model add');
        end if;
    end if;
    t := mill.pick(w.kind, m);
    if t.task_id is null then
        return;
    end if;
    if w.kind = 'download' and t.slot is null then
        t.slot := mill.take_slot();
        if t.slot is null then  -- the ring is full: scoring has to catch up
            update mill.task set state = 'ready' where mill.task.task_id = t.task_id;
            return;
        end if;
        update mill.task set slot = t.slot where mill.task.task_id = t.task_id;
    end if;
    task_id := t.task_id;
    lease_id := (s.epoch::bigint << 40) + nextval('mill.lease_number');
    insert into mill.lease (lease_id, task_id, instance_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id,
            clock_timestamp() + make_interval(secs => s.lease_seconds),
            clock_timestamp() + make_interval(secs => s.lease_max_seconds));
    payload := case w.kind
        when 'extract' then (select jsonb_build_object('wat_id', wat_id, 'location', location,
                                                           'link_kinds', link_kinds, 'last_try', t.tries + 1 >= s.max_tries) from mill.wat_file where wat_id = t.wat_id)
        when 'download' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt)
        when 'score' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt,
                                             'count', (select count(*) from mill.to_score(t)))
    end;
    return next;
end
$$;
comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location, link_kinds, last_try}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v1 must give.';

insert into mill.crawl_count (crawl_id, link_kind, stage, name, count)
select coalesce(f.crawl_id, 0), w.link_kind, w.stage,
       case when w.stage = 'ended_early' then regexp_replace(w.name, '^after \d+ records: ', '') else w.name end, sum(w.count)
  from (select wat_id, link_kind, stage, name, count from mill.wat_count
        union all
        select distinct wat_id, '', 'files', '', 1 from mill.wat_count) w
  join mill.wat_file f using (wat_id)
 group by 1, 2, 3, 4;

create or replace view report.pair as
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
comment on column report.pair.outcome is 'How the download ended; null while it has not';
comment on column report.pair.http_status is 'The last HTTP status; null where no server answered';
comment on column report.pair.bytes is 'Length of the body as received';
comment on column report.pair.width is 'Width of the original in pixels';
comment on column report.pair.height is 'Height of the original in pixels';
comment on column report.pair.md5 is 'md5 of the image''s bytes';
comment on column report.pair.sha256 is 'sha256 of the image''s bytes';
comment on column report.pair.dhash is '64-bit difference hash, as a signed integer';
comment on column report.pair.attempt is 'Which download attempt this is';
comment on column report.pair.removed is 'Whether a removal names its URL or its image';
comment on column report.pair.link_kind is 'image, audio, video or document; only images are downloaded';

create or replace view report.wat as
select f.wat_id, f.location, c.name as crawl,
       t.state, t.tries, t.reason,
       n.records, n.links, n.dropped, n.duplicates, n.pairs, n.bad_records, n.ended_early, f.link_kinds, n.languages
  from mill.wat_file f
  left join mill.crawl c using (crawl_id)
  join mill.task t on t.wat_id = f.wat_id
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
                  select name, sum(count) as count from mill.wat_count l where l.wat_id = f.wat_id and stage = 'pair' group by name) l) as languages
        from mill.wat_count w where w.wat_id = f.wat_id
  ) n on true;
comment on view report.wat is 'WAT files with what their extraction counted: links = dropped + duplicates + pairs.';
comment on column report.wat.wat_id is 'Key';
comment on column report.wat.location is 'Path or URL';
comment on column report.wat.crawl is 'The crawl that it belongs to, if any';
comment on column report.wat.state is 'ready, leased, submitted, done or parked';
comment on column report.wat.tries is 'How often its extraction failed';
comment on column report.wat.reason is 'Why it failed last';
comment on column report.wat.records is 'WARC records read';
comment on column report.wat.links is 'Links of its kinds seen';
comment on column report.wat.dropped is 'Links dropped, by reason';
comment on column report.wat.duplicates is 'Links whose URL was known already, from this file or another';
comment on column report.wat.pairs is 'Links that became pairs';
comment on column report.wat.bad_records is 'Records that could not be read, by kind';
comment on column report.wat.ended_early is 'Why the rest of the file could not be read; null where it could';
comment on column report.wat.link_kinds is 'Which kinds of links are extracted of it';
comment on column report.wat.languages is 'Pairs by language; nolang where CLD3 is not sure';

create or replace view report.link_count as
select stage, name, sum(count)::bigint as count, link_kind from mill.crawl_count group by stage, name, link_kind having sum(count) > 0;
comment on view report.link_count is 'What all extractions counted: links = dropped + duplicate + pair.';
comment on column report.link_count.stage is 'files, records, links, bad_record, ended_early, dropped, duplicate or pair';
comment on column report.link_count.name is 'Within the stage: drop reason, kind of bad record, language; else empty';
comment on column report.link_count.count is 'How many';
comment on column report.link_count.link_kind is 'image, audio, video or document; empty for files and records';

create or replace view report.pair_count as
select coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs, b.link_kind
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 4;
comment on view report.pair_count is 'Pairs by language and by how their download ended. Reads every pair.';
comment on column report.pair_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair_count.outcome is 'How the download ended; waiting while it has not';
comment on column report.pair_count.pairs is 'How many pairs';
comment on column report.pair_count.link_kind is 'image, audio, video or document; only images are downloaded';

create view report.crawl as
select coalesce(c.name, '') as crawl, f.wat_files, n.records, n.links, n.dropped, n.duplicates, n.pairs, n.languages, n.bad_records
  from (select crawl_id, jsonb_object_agg(state, files) as wat_files
          from (select coalesce(f.crawl_id, 0) as crawl_id, t.state, count(*) as files
                  from mill.wat_file f join mill.task t using (wat_id) group by 1, 2) s
         group by crawl_id) f
  left join mill.crawl c using (crawl_id)
  left join lateral (
      select coalesce(sum(count) filter (where stage = 'records'), 0)::bigint as records,
             coalesce(sum(count) filter (where stage = 'links'), 0)::bigint as links,
             coalesce(jsonb_object_agg(name, count) filter (where stage = 'dropped'), '{}') as dropped,
             coalesce(sum(count) filter (where stage = 'duplicate'), 0)::bigint as duplicates,
             coalesce(sum(count) filter (where stage = 'pair'), 0)::bigint as pairs,
             coalesce(jsonb_object_agg(coalesce(nullif(name, ''), 'nolang'), count) filter (where stage = 'pair'), '{}') as languages,
             coalesce(jsonb_object_agg(name, count) filter (where stage = 'bad_record'), '{}') as bad_records
        from (select stage, name, sum(count) as count from mill.crawl_count w where w.crawl_id = f.crawl_id
               group by stage, name having sum(count) > 0) w
  ) n on true;
comment on view report.crawl is 'Crawls with what the extraction of their WAT files counted: links = dropped + duplicates + pairs.';
comment on column report.crawl.crawl is 'CC-MAIN-YYYY-WW; empty for the files that were added alone';
comment on column report.crawl.wat_files is 'WAT files by state: ready, leased, submitted, done or parked';
comment on column report.crawl.records is 'WARC records read';
comment on column report.crawl.links is 'Links of its kinds seen';
comment on column report.crawl.dropped is 'Links dropped, by reason';
comment on column report.crawl.duplicates is 'Links whose URL was known already';
comment on column report.crawl.pairs is 'Links that became pairs';
comment on column report.crawl.languages is 'Pairs by language; nolang where CLD3 is not sure';
comment on column report.crawl.bad_records is 'Records that could not be read, by kind';

do $$
declare
    prefix text := left(current_database(), 40) || '_';
begin
    execute format('grant execute on function api.submit_extract_v2 to %I', prefix || 'extract');
    execute format('grant execute on function api.accept_next_v2, api.merge_number_v1, api.known_keys_v1, api.staged_keys_v1 to %I',
                   prefix || 'steward');
    execute format('grant insert (link_kind) on inbox.pair to %I', prefix || 'extract');
    execute format('grant select on report.crawl to %I', prefix || 'researcher');
end
$$;

revoke all on function api.submit_extract_v2, api.accept_next_v2, api.merge_number_v1, api.known_keys_v1,
    api.staged_keys_v1, mill.open_batches, mill.stage_merge, mill.open_batch, mill.close_batch,
    mill.deal, mill.accept_extract, mill.count_crawl, mill.add_wat from public;

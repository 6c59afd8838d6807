-- What is not an image is lost, with its batches; and the sums by crawl.

drop view report.crawl;
drop view report.pair;
drop view report.wat;
drop view report.link_count;
drop view report.pair_count;

delete from mill.seen_url k using mill.batch b where b.batch_id = k.batch_id and b.link_kind <> 'image';
delete from mill.pair p using mill.batch b where b.batch_id = p.batch_id and b.link_kind <> 'image';
delete from mill.batch where link_kind <> 'image';
delete from inbox.pair where link_kind <> 'image';
delete from mill.wat_count where link_kind not in ('', 'image');
delete from mill.submission_extract e
 where exists (select from unnest(e.link_kind) k where k not in ('', 'image'));

drop function api.submit_extract_v2(bigint, integer, text[], text[], text[], bigint[]);
drop function mill.open_batches(text, bigint);
drop function mill.stage_merge(mill.submission, uuid[], boolean);
drop function mill.open_batch(text, integer);
drop function mill.close_batch(bigint);
drop function mill.deal(mill.submission, mill.task);
drop function mill.accept_extract(mill.submission, mill.task, uuid[], boolean);
drop function api.accept_next_v2(bigint, bigint, bytea, boolean);
drop function api.merge_number_v1();
drop function api.known_keys_v1(integer);
drop function api.staged_keys_v1();
drop sequence mill.merge_number;
drop function mill.count_crawl(bigint, integer);
drop function mill.add_wat(text, text[], text[]);

drop table mill.crawl_count;
alter table mill.wat_file drop column link_kinds;
alter table mill.wat_count drop constraint wat_count_pkey;
alter table mill.wat_count drop column link_kind;
alter table mill.wat_count add constraint wat_count_pkey primary key (submission_id, stage, name);
comment on table mill.wat_count is 'What an accepted extraction counted; the only place where links are counted.';
drop index mill.batch_open_idx;
alter table mill.batch drop column link_kind;
create unique index batch_open_idx on mill.batch (bucket) where closed_at is null;
alter table mill.submission_extract drop column link_kind;
alter table inbox.pair drop column link_kind;
alter table mill.merge_row drop column link_kind;

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
    t mill.task;
    id bigint := mill.submitted_before(p_lease_id, 0);
    links bigint;
    dropped bigint;
begin
    -- asked first: the first call ended the lease, and its answer may have been lost
    if id is not null and exists (
        select from mill.submission s where s.submission_id = id and s.worker_id = (mill.me('extract')).worker_id) then
        return id;
    end if;
    t := mill.held(p_lease_id, 'extract');
    if p_rows is null or p_rows <> (select count(*) from inbox.pair where lease_id = p_lease_id and worker = session_user) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s', p_rows, p_lease_id));
    end if;
    select sum(c) filter (where s = 'links'), coalesce(sum(c) filter (where s = 'dropped'), 0)
      into links, dropped
      from unnest(p_stage, p_name, p_count) as x (s, n, c);
    if links is distinct from p_rows + dropped then
        perform mill.refuse('PM003', format('the counts do not add up: %s links are not %s kept and %s dropped', links, p_rows, dropped));
    end if;
    if exists (
        select from unnest(p_stage, p_name, p_count) as x (s, n, c)
         where s is null or n is null or c is null or c < 0 or length(n) > 200
            or s not in ('records', 'links', 'bad_record', 'ended_early', 'dropped')
            or s = 'dropped' and not exists (select from mill.drop_reason d where d.name = x.n)
    ) then
        perform mill.refuse('PM003', 'a count is malformed: an unknown stage or drop reason, or a negative number');
    end if;
    id := mill.receive(t, p_lease_id, 0, p_rows);
    insert into mill.submission_extract values (id, p_stage, p_name, p_count);
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    return id;
end
$$;
comment on function api.submit_extract_v1 is
    'Hands over what was copied into inbox.pair under this lease, with its counts, and ends the lease. Idempotent. '
    'Refused unless links = rows + dropped.';

-- How many batches new pairs are dealt over: expected pairs / batch_size, rounded up, at most open_batches_max.
create function mill.open_batches(new_pairs bigint) returns integer
language sql stable
as $$
    select greatest(1, least(s.open_batches_max, ceil((new_pairs + expected.pairs)::numeric / s.batch_size)))::integer
      from mill.setting s,
           lateral (
               -- all but the one that is being accepted
               select (select greatest(count(*) - 1, 0) from mill.task
                        where kind = 'extract' and state in ('ready', 'leased', 'submitted'))
                      * coalesce((select sum(count) / nullif(count(distinct wat_id), 0) from mill.wat_count where stage = 'pair'),
                                 s.pairs_per_wat) as pairs
           ) expected
$$;
comment on function mill.open_batches is 'Number of buckets to deal these new pairs and those still to come over.';

-- The new URLs of one extraction: first of its key in the file, not removed, never seen, dealt over
-- so many buckets by hash. Read from the inbox once, and only the sender's own rows: anybody who may
-- COPY can name any lease.
create function mill.stage_merge(s mill.submission, buckets integer, out removed bigint, out fresh bigint)
language plpgsql
as $$
declare
    sender name := (select login from mill.worker where worker_id = s.worker_id);
    staged bigint;
begin
    truncate mill.merge_row;
    select count(*), count(*) filter (where exists (select from mill.removal r where r.md5 = i.url_key))
      into staged, removed
      from inbox.pair i where i.lease_id = s.lease_id and i.worker = sender;
    if staged <> s.row_count then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, staged));
    end if;
    insert into mill.merge_row (bucket, place, url_key, url, text, language, language_probability, license)
    select k.bucket, row_number() over (partition by k.bucket order by f.url_key) - 1,
           f.url_key, f.url, f.text, f.language, f.language_probability, f.license
      from (select distinct on (i.url_key) i.*
              from inbox.pair i
             where i.lease_id = s.lease_id and i.worker = sender
             order by i.url_key, i.ordinal) f,
           lateral (select get_byte(uuid_send(f.url_key), 15) % buckets as bucket) k
     where not exists (select from mill.removal r where r.md5 = f.url_key)
       and not exists (select from mill.seen_url k where k.url_key = f.url_key);
    get diagnostics fresh = row_count;
end
$$;
comment on function mill.stage_merge is
    'Fills mill.merge_row with an extraction''s new URLs, dealt over buckets; counts the removed and the new.';

create function mill.open_batch(p_bucket integer) returns bigint
language plpgsql
as $$
declare
    id bigint;
begin
    insert into mill.batch (bucket) values (p_bucket) returning batch_id into id;
    perform mill.ensure_partitions(id);
    return id;
end
$$;
comment on function mill.open_batch is 'Opens a batch for a bucket.';

create function mill.close_batch(p_batch_id bigint) returns void
language sql
as $$
    update mill.batch set closed_at = now() where batch_id = p_batch_id and closed_at is null;
    insert into mill.task (kind, batch_id) values ('download', p_batch_id);
$$;
comment on function mill.close_batch is 'Closes a batch and makes its download task.';

-- Turns mill.merge_row into pairs: dealt by hash, so that every batch mixes hosts and WAT files.
create function mill.deal(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    size constant integer := (select batch_size from mill.setting);
    share record;
    b mill.batch;
    dealt_bucket integer[] := '{}';
    dealt_first integer[] := '{}';  -- place of the bucket's row that is n = 0; negative in a batch that was begun before
    dealt_batch bigint[] := '{}';
    next_place integer;
begin
    -- in order of id: whoever else locks several batches does it in the same order
    perform from mill.batch where closed_at is null order by batch_id for update;
    for share in select bucket, count(*)::integer as rows from mill.merge_row group by bucket order by bucket loop
        next_place := 0;
        while next_place < share.rows loop
            select * into b from mill.batch where closed_at is null and bucket = share.bucket;
            if not found then
                b.batch_id := mill.open_batch(share.bucket);
                b.pair_count := 0;
            end if;
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
          join unnest(dealt_bucket, dealt_first, dealt_batch) as d (bucket, first, batch_id)
            on d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
        returning url_key, batch_id, n
    )
    insert into mill.seen_url (url_key, batch_id, n) select url_key, batch_id, n from dealt order by url_key;
end
$$;
comment on function mill.deal is 'Turns the staged new URLs into pairs of the open batches; full batches are closed.';

create function mill.accept_extract(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    m record;
begin
    lock table mill.seen_url in share row exclusive mode;  -- one merge at a time
    select * into m from mill.stage_merge(s, mill.open_batches(s.row_count));
    perform mill.deal(s, t);
    insert into mill.wat_count (submission_id, wat_id, stage, name, count)
    select s.submission_id, t.wat_id, c.stage, c.name, sum(c.count)
      from (select x.stage, x.name, x.count
              from mill.submission_extract e, unnest(e.stage, e.name, e.count) as x (stage, name, count)
             where e.submission_id = s.submission_id
            union all
            select 'dropped', 'removed', m.removed where m.removed > 0
            union all
            select 'duplicate', '', s.row_count - m.removed - m.fresh
            union all
            select 'pair', coalesce(r.language, ''), count(*) from mill.merge_row r group by r.language) c
     group by c.stage, c.name;
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from inbox.pair where lease_id = s.lease_id;
end
$$;
comment on function mill.accept_extract is 'Merges an extraction: dedupes it against every known URL, deals what is new, counts the rest.';

create function mill.add_wat(p_crawl text, p_locations text[]) returns integer
language sql
as $$
    with the_crawl as (
        insert into mill.crawl (name) select p_crawl where p_crawl is not null
        on conflict (name) do update set name = excluded.name
        returning crawl_id
    ), added as (
        insert into mill.wat_file (crawl_id, location)
        select (select crawl_id from the_crawl), l.location
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

create or replace function api.accept_next_v1(out submission_id bigint, out kind text, out row_count integer, out rejected_because text)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s mill.submission;
    t mill.task;
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
    if s.state = 'received' then
        begin
            case t.kind
                when 'extract' then perform mill.accept_extract(s, t);
                when 'download' then perform mill.accept_download(s, t);
                when 'score' then perform mill.accept_score(s, t);
            end case;
            update mill.submission x set state = 'accepted', decided_at = now() where x.submission_id = s.submission_id;
            perform mill.settle(t.task_id);
        exception when data_exception or integrity_constraint_violation then
            rejected_because := sqlerrm;
            perform mill.reject(s, sqlerrm);
        end;
    end if;
    return next;
end
$$;
comment on function api.accept_next_v1 is
    'Accepts the oldest received submission in one transaction: expands it into rows, credits it, ends its task. '
    'No row when nothing waits. Data that no constraint lets in is rejected, with the reason.';

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
            delete from mill.seen_url k using mill.pair p
             where p.submission_id = p_submission_id and k.url_key = p.url_key and k.batch_id = p.batch_id and k.n = p.n;
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
        when 'extract' then (select jsonb_build_object('wat_id', wat_id, 'location', location) from mill.wat_file where wat_id = t.wat_id)
        when 'download' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt)
        when 'score' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt,
                                             'count', (select count(*) from mill.to_score(t)))
    end;
    return next;
end
$$;
comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v1 must give.';

create view report.pair as
select mill.sample_id(p.batch_id, p.n) as sample_id, p.batch_id, p.n, p.wat_id,
       p.url, p.text, coalesce(p.language, 'nolang') as language, p.language_probability, p.license,
       o.name as outcome, d.http_status, d.bytes, d.width, d.height, d.md5, d.sha256, d.dhash, d.attempt,
       exists (select from mill.removal r where r.md5 in (p.url_key, d.md5) or r.sha256 = d.sha256) as removed
  from mill.pair p
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

create view report.wat as
select f.wat_id, f.location, c.name as crawl,
       t.state, t.tries, t.reason,
       n.records, n.links, n.dropped, n.duplicates, n.pairs, n.bad_records, n.ended_early
  from mill.wat_file f
  left join mill.crawl c using (crawl_id)
  join mill.task t on t.wat_id = f.wat_id
  left join lateral (
      select sum(count) filter (where stage = 'records')::bigint as records,
             sum(count) filter (where stage = 'links')::bigint as links,
             jsonb_object_agg(name, count) filter (where stage = 'dropped') as dropped,
             sum(count) filter (where stage = 'duplicate')::bigint as duplicates,
             sum(count) filter (where stage = 'pair')::bigint as pairs,
             jsonb_object_agg(name, count) filter (where stage = 'bad_record') as bad_records,
             min(name) filter (where stage = 'ended_early') as ended_early
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
comment on column report.wat.links is 'IMG@/src links seen';
comment on column report.wat.dropped is 'Links dropped, by reason';
comment on column report.wat.duplicates is 'Links whose URL was known already, from this file or another';
comment on column report.wat.pairs is 'Links that became pairs';
comment on column report.wat.bad_records is 'Records that could not be read, by kind';
comment on column report.wat.ended_early is 'Why the rest of the file could not be read; null where it could';

create view report.link_count as
select stage, name, sum(count)::bigint as count from mill.wat_count group by stage, name;
comment on view report.link_count is 'What all extractions counted: links = dropped + duplicate + pair.';
comment on column report.link_count.stage is 'records, links, bad_record, ended_early, dropped, duplicate or pair';
comment on column report.link_count.name is 'Within the stage: drop reason, kind of bad record, language; else empty';
comment on column report.link_count.count is 'How many';

create view report.pair_count as
select coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2;
comment on view report.pair_count is 'Pairs by language and by how their download ended. Reads every pair.';
comment on column report.pair_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.pair_count.outcome is 'How the download ended; waiting while it has not';
comment on column report.pair_count.pairs is 'How many pairs';

do $$
begin
    execute format('grant select on report.pair, report.wat, report.link_count, report.pair_count to %I',
                   left(current_database(), 40) || '_researcher');
end
$$;

revoke all on function mill.open_batches, mill.stage_merge, mill.open_batch, mill.close_batch,
    mill.deal, mill.accept_extract, mill.add_wat from public;

-- Without taggers: their tags go with them, and can be computed again. A thumbnail that shows something else is broken.

update mill.score set outcome = 1 where outcome = 3;
delete from mill.withdrawn where submission_id in (
    select submission_id from mill.submission join mill.task t using (task_id) join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.submission where task_id in (select t.task_id from mill.task t join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.lease where task_id in (select t.task_id from mill.task t join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.task where model_id in (select model_id from mill.model where kind <> 'clip');
delete from mill.model where kind <> 'clip';

drop trigger take_in on inbox.pair;
drop trigger take_in on inbox.score;
drop trigger take_in on inbox.tag;
drop view report.wrong_thumbnail;
drop view report.tag;
drop view mill.current_tag;
drop view report.model;
drop view report.score_count;
drop view report.score;
drop view mill.current_score;
drop function mill.to_score(mill.task);
drop function mill.add_model(text, text, text, integer, text, integer, text[], text, text, jsonb, bytea);
drop function mill.judge(mill.recheck);
drop function mill.ask_again(mill.recheck, mill.task);
drop function mill.told_little(mill.task);
drop function mill.end_idle(integer[]);
drop function mill.is_drawn(integer, timestamptz, bigint, integer);
drop function mill.retire_model(integer);
drop function mill.cut_off(timestamptz);
drop function mill.withdraw_tags(mill.task, text);
drop function mill.queue_tagging(mill.task);
drop function mill.accept_tags(mill.submission, mill.task, mill.model, name);
drop function mill.check_tags(mill.task, mill.model, bigint, integer, integer);
drop function api.embeddings_v1(bigint, integer, integer);
drop function api.weights_v1(text);
drop function api.taggers_v1(text);
drop function mill.to_tag(mill.task);
drop function mill.check_scores(mill.task, mill.model, bigint, integer, integer);
drop function api.submit_score_v2(bigint, integer, integer, integer);
drop function api.thumbnails_v2(bigint, integer, integer);
drop function mill.left_to_score(mill.task);
drop function mill.take_in();
drop function mill.may_check(integer);

drop table inbox.tag;
drop table mill.tag;
alter table inbox.score drop column text_tokens;
alter table mill.score drop column text_tokens;
alter table mill.submission drop column tag_count;
drop index mill.lease_unfinished_idx;
create index lease_unfinished_idx on mill.lease (ended_at) where ended_as <> 'completed';
alter table mill.lease drop column worker_id;
drop index mill.model_tagger_name_key;
alter table mill.model drop constraint model_base_check, drop constraint model_weights_check, drop constraint model_labels_check;
alter table mill.model drop column retired_at, drop column weights, drop column metrics, drop column licence, drop column revision, drop column labels,
    drop column base_model_id, drop column kind;
comment on table mill.model is 'A CLIP model that scores pairs.';
comment on column mill.model.name is 'open_clip''s model name, or the folder of a model';
comment on column mill.model.dims is 'Length of an embedding';
delete from mill.score_outcome where code = 3;

alter table inbox.pair drop constraint pair_url_key_check, drop constraint pair_url_check, drop constraint pair_text_check,
    drop constraint pair_rest_check;
alter table inbox.score drop constraint score_size_check;
alter table mill.setting drop column inbox_mb_per_lease;
alter table mill.lease drop column copied_bytes;
alter table mill.task drop column excused;
drop index mill.recheck_void_idx;
alter table mill.lease set (fillfactor = 70);
do $$
declare
    child text;
begin
    for child in select inhrelid::regclass::text from pg_inherits
                  where inhparent in ('mill.pair'::regclass, 'mill.download'::regclass, 'mill.score'::regclass,
                                      'mill.embedding'::regclass, 'mill.opt_out'::regclass) loop
        execute format('alter table %s reset (autovacuum_freeze_min_age)', child);
    end loop;
    for child in select inhrelid::regclass::text from pg_inherits where inhparent = 'mill.thumbnail'::regclass loop
        execute format('alter table %s reset (autovacuum_vacuum_insert_threshold, toast.autovacuum_vacuum_insert_threshold)', child);
    end loop;
end
$$;
alter table mill.embedding alter column image set storage extended, alter column text set storage extended;

-- Partitions of the result tables.

-- 1,000 batches, 10 million pairs, are one partition: LAION-5B's candidates would be about 5,000.
create or replace function mill.ensure_partitions(upto_batch bigint) returns void
language plpgsql
as $$
declare
    width constant bigint := 1000;
    parent text;
    child text;
    low bigint;
begin
    -- batches are numbered in order: only the last partitions can be missing
    for low in select g * width from generate_series(greatest(0, upto_batch / width - 1), upto_batch / width) g loop
        foreach parent in array array['pair', 'download', 'score', 'embedding', 'opt_out'] loop
            child := format('%s_b%s', parent, lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null;
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            execute format('create table mill.%I (like mill.%I including all)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child,
                           format('Batches %s to %s of mill.%s', low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;

comment on function mill.ensure_partitions is
    'Makes the partitions of pair, download, score, embedding and opt_out that hold batches up to this one.';

create or replace function mill.ensure_slots(ring smallint) returns void
language plpgsql
as $$
declare
    child text;
begin
    for i in 0 .. ring - 1 loop
        child := format('thumbnail_s%s', i);
        continue when to_regclass('mill.' || child) is not null;
        execute format('create table mill.%I partition of mill.thumbnail for values in (%s)', child, i);
        -- JPEG does not compress: EXTERNAL saves the attempt
        execute format('alter table mill.%I alter column image set storage external', child);
        execute format('comment on table mill.%I is %L', child, format('Slot %s of the thumbnail ring', i));
        insert into mill.thumbnail_slot (slot) values (i);
    end loop;
end
$$;

create or replace function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l join mill.instance i using (instance_id)
     where i.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
$$;

-- A claim never touches the result tables. MATERIALIZED, and not IN (subselect): under some plans
-- the subselect is run again for every row, and LIMIT 2 took 1,000 tasks.
-- p_model_id is null, and not IS NOT DISTINCT FROM: of that the planner expects one row, so it read and sorted
-- every ready task: 16 ms with 90,000 WAT files, and 0.5 in the order of the index.
create or replace function mill.pick(p_kind text, p_model_id integer, p_worker_id integer, p_has_slot boolean default false) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and (p_model_id is null or model_id = p_model_id)
           and (slot is not null or is_check or not p_has_slot)  -- a check's thumbnails are not kept
           and (avoid_workers is null or mill.is_stranger(p_worker_id, avoid_workers, is_check))
         order by is_check desc, task_id
         limit 1
           for update skip locked
    )
    update mill.task t
       set state = 'leased', changed_at = now()
      from picked
     where t.task_id = picked.task_id
    returning t.*
$$;

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
    if mill.unfinished(w.worker_id) >= s.unfinished_per_hour then
        perform mill.refuse('PM003', format('%s leases of this login were failed, lost or given back within an hour, the most that may be: '
                                            'find out why, and start again later', s.unfinished_per_hour));
    end if;
    if w.kind = 'score' then
        select model_id into m from mill.model where digest = p_model_digest;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights; an admin adds it with: pairmill model add');
        end if;
    end if;
    t := mill.pick(w.kind, m, w.worker_id);
    if t.task_id is null then
        return;
    end if;
    if w.kind = 'download' and t.slot is null and not t.is_check then
        t.slot := mill.take_slot();
        if t.slot is null then  -- the ring is full: scoring has to catch up
            update mill.task set state = 'ready' where mill.task.task_id = t.task_id;
            t := mill.pick(w.kind, m, w.worker_id, true);  -- one that has its slot already: a retry, a lost lease
            if t.task_id is null then
                return;
            end if;
        else
            update mill.task set slot = t.slot where mill.task.task_id = t.task_id;
        end if;
    end if;
    task_id := t.task_id;
    lease_id := (s.epoch::bigint << 40) + nextval('mill.lease_number');
    insert into mill.lease (lease_id, task_id, instance_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id,
            clock_timestamp() + make_interval(secs => s.lease_seconds),
            clock_timestamp() + make_interval(secs => s.lease_max_seconds));
    if w.kind = 'download' and not t.is_check and w.streak is not null then
        perform mill.hide_canaries(t, lease_id);
    end if;
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

create or replace function api.fail_v1(p_lease_id bigint, p_reason text, p_retry boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'failed');
    perform mill.put_back(t.task_id, p_reason, p_retry);
end
$$;

create or replace function api.drained_v1(p_model_digest text default null) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    open_batches boolean := exists (select from mill.batch where closed_at is null and pair_count > 0);
begin
    return case w.kind
        when 'extract' then not mill.pending('{extract}')
        when 'download' then not mill.pending('{extract,download}') and not open_batches
        when 'score' then not mill.pending('{extract,download}') and not open_batches and not exists (
            select from mill.task join mill.model using (model_id)
             where kind = 'score' and state in ('ready', 'leased', 'submitted') and digest = p_model_digest)
        when 'steward' then not mill.pending('{extract,download,score}') and not open_batches and not exists (
            select from mill.thumbnail_slot where state <> 'empty' and mill.slot_is_done(slot))
    end;
end
$$;

create or replace function api.complete_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
    missing bigint := 0;
begin
    if t.kind = 'download' and not mill.is_covered(t) then
        missing := (select count(*) from mill.to_download(t));
    elsif t.kind = 'score' then
        missing := (select count(*) from mill.to_score(t));
    end if;
    missing := missing + mill.canaries_left(p_lease_id);  -- or what is missing would tell which they are
    if t.kind = 'extract' or missing > 0 then
        perform mill.refuse('PM005', format('task %s is not complete: %s positions were not submitted', t.task_id, missing));
    end if;
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    perform mill.settle(t.task_id);
end
$$;

-- The extract worker's part, and the merge that decides which links are new.

create or replace function api.submit_extract_v2(
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

-- The new URLs of one extraction: first of its key in the file, not removed, never seen, dealt over
-- buckets by hash. Read only from the sender's own rows: anybody who may COPY can name any lease.
-- work_mem: 50,000 rows of a file are sorted twice; on disk that took a sixth of the merge.
-- plan_cache_mode: only a plan made for this array looks keys up in it by a hash; a generic one, which a
-- session may turn to after five merges, would compare each row with each of its tens of thousands of keys.
--
-- unknown: null, or the keys that a filter in front of seen_url has never seen. Those are not looked up;
-- the others are (trusted false), or are taken for known without a look (trusted true).
create or replace function mill.stage_merge(
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

-- The score worker's part: thumbnails and texts out, similarities and embeddings in.

create function mill.to_score(t mill.task) returns table (n integer, submission_id bigint)
language sql stable
as $$
    select d.n, d.submission_id
      from mill.download d
     where d.batch_id = t.batch_id and d.attempt = t.attempt and d.outcome = 0
       and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
       and d.n not in (
           select s.n from mill.score s
            where s.batch_id = t.batch_id and s.attempt = t.attempt and s.model_id = t.model_id
              and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
           union all
           select i.n
             from mill.submission s
             join inbox.score i on i.lease_id = s.lease_id and i.part = s.part
            where s.task_id = t.task_id and s.state = 'received')
$$;

comment on function mill.to_score is
    'Positions of a score task that no received or accepted submission covers yet, with the submission of their thumbnail.';

create or replace function api.thumbnails_v1(p_lease_id bigint, p_from integer, p_to integer)
returns table (n integer, text text, image bytea)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    in_slot smallint := (select d.slot from mill.task d
                          where d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt);
begin
    if in_slot is null then
        return;
    end if;
    -- the slot as a literal: the plan opens one partition of the ring, not all
    return query execute format(
        'select s.n, p.text, h.image'
        '  from mill.to_score($1) s'
        '  join mill.pair p on p.batch_id = $2 and p.n = s.n'
        '  join mill.thumbnail h on h.slot = %s and h.batch_id = $2 and h.attempt = $3'
        '   and h.n = s.n and h.submission_id = s.submission_id'
        ' where s.n >= $4 and s.n < $5'
        ' order by s.n', in_slot)
        using t, t.batch_id, t.attempt, p_from, p_to;
end
$$;

comment on function api.thumbnails_v1 is
    'Text and thumbnail of positions from p_from up to, not including, p_to. Meant for COPY (SELECT …) TO STDOUT. A scorer that '
    'gets fewer rows in all than its claim counted must fail the task: TRUNCATE is not MVCC-safe, an old snapshot reads none.';

create or replace function api.submit_score_v1(p_lease_id bigint, p_part integer, p_rows integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    bytes constant integer := 2 * (select dims from mill.model where model_id = t.model_id);
begin
    if id is not null then
        return id;
    end if;
    if p_part is null or p_rows is null or p_rows = 0 or p_rows <> (
        select count(*) from inbox.score where lease_id = p_lease_id and part = p_part and worker = session_user) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s, part %s',
                                            p_rows, p_lease_id, p_part));
    end if;
    if p_rows <> (select count(distinct i.n) from inbox.score i join mill.to_score(t) s on s.n = i.n
                   where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    if exists (
        select from inbox.score i
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           and (not exists (select from mill.score_outcome o where o.code = i.outcome)
                or (i.outcome = 0) <> (num_nonnulls(i.similarity, i.image, i.text) = 3)
                or i.outcome <> 0 and num_nonnulls(i.similarity, i.image, i.text) > 0
                -- rounding may pass 1 by a little; NaN is above every number
                or not i.similarity between -1.01 and 1.01
                or octet_length(i.image) <> bytes or octet_length(i.text) <> bytes)
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a similarity outside -1 to 1, or an embedding of other dims');
    end if;
    return mill.receive(t, p_lease_id, p_part, p_rows);
end
$$;

comment on function api.submit_score_v1 is
    'Hands over what was copied into inbox.score under this lease and part. Idempotent by (lease, part).';

create or replace function mill.accept_score(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    accepted bigint;
begin
    -- one snapshot for all of it: a sender may go on copying under a number that it has submitted
    with sent as materialized (
        select i.*
          from inbox.score i join mill.worker w on w.login = i.worker
         where i.lease_id = s.lease_id and i.part = s.part and w.worker_id = s.worker_id
    ), scored as (
        insert into mill.score (batch_id, n, attempt, model_id, outcome, similarity, submission_id)
        select t.batch_id, n, t.attempt, t.model_id, outcome, similarity, s.submission_id from sent
    ), embedded as (
        insert into mill.embedding (batch_id, n, attempt, model_id, image, text, submission_id)
        select t.batch_id, n, t.attempt, t.model_id, image, text, s.submission_id from sent where outcome = 0
    )
    select count(*) into accepted from sent;
    if accepted <> s.row_count then
        perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, accepted));
    end if;
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
end
$$;

comment on function mill.accept_score is 'Moves a score submission from its inbox into score and embedding.';

-- A submitted task is done once nothing of it awaits acceptance; if a part was rejected it goes back.
create or replace function mill.settle(p_task_id bigint) returns void
language plpgsql
as $$
declare
    t mill.task;
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if t.state <> 'submitted' or exists (
        select from mill.submission where task_id = p_task_id and state = 'received') then
        return;
    end if;
    if t.kind = 'download' and not mill.is_covered(t)
       or exists (select from mill.to_score(t) where t.kind = 'score') then
        perform mill.put_back(p_task_id, 'a part of what was submitted was rejected', true);
        return;
    end if;
    update mill.task set state = 'done', reason = null, changed_at = now() where task_id = p_task_id;
    if t.kind = 'download' then
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model order by model_id;
        perform mill.draw_checks(t);
    end if;
end
$$;

create or replace function mill.reject(s mill.submission, why text) returns void
language plpgsql
as $$
begin
    update mill.submission set state = 'rejected', reason = left(why, 1000), decided_at = now()
     where submission_id = s.submission_id;
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from mill.submission_download where submission_id = s.submission_id;
    -- an extraction's rows are all under its lease; a scoring's under lease and part
    delete from inbox.pair where lease_id = s.lease_id;
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
    if (select kind from mill.task where task_id = s.task_id) = 'extract' then
        perform mill.put_back(s.task_id, why, true);
    else
        perform mill.settle(s.task_id);
    end if;
end
$$;

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
            insert into mill.task (kind, batch_id, attempt, positions)
            select 'download', t.batch_id, mill.next_attempt(t.batch_id), array_agg(d.n order by d.n)
              from mill.download d
             where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = p_submission_id;
        when 'score' then
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id and state in ('done', 'parked');
    end case;
end
$$;

-- What the steward does besides accepting: late leases, the thumbnail ring, partitions.

create or replace function api.expire_leases_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    t record;
    expired integer := 0;
begin
    for t in
        select x.task_id, l.lease_id, greatest(l.claimed_at, l.expires_at - make_interval(secs => lease_seconds)) as seen_at
          from mill.task x join mill.lease l using (task_id) cross join mill.setting
         where l.ended_at is null and l.expires_at <= clock_timestamp()
         order by x.task_id
           for update of x, l skip locked  -- a heartbeat that does not commit holds l
    loop
        -- looked at again under the lock: it may have been completed meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            if t.seen_at < pg_postmaster_start_time() then  -- it may well be the server that was away, and not the worker
                update mill.task
                   set state = 'ready', changed_at = now(), reason = format('lease %s was lost while the server was away', t.lease_id)
                 where task_id = t.task_id;
            else
                perform mill.put_back(t.task_id, format('lease %s was lost: no heartbeat in time', t.lease_id), true);
            end if;
            update mill.task set ready_at = now() where task_id = t.task_id;  -- another may try at once
            expired := expired + 1;
        end if;
    end loop;
    return expired;
end
$$;

comment on function api.expire_leases_v1 is
    'Returns the tasks of late leases to the queue; what was submitted under them stays. Counts a try, unless the server started after the '
    'holder''s last sign of life.';

create or replace function api.sweep_inbox_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
    more bigint;
begin
    -- a lease number that does not exist was invented: nothing will ever submit it either
    delete from inbox.pair i
     where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)
       and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.state = 'received');
    get diagnostics swept = row_count;
    delete from inbox.score i
     where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)
       and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.part = i.part and s.state = 'received');
    get diagnostics more = row_count;
    return swept + more;
end
$$;

create or replace function mill.slot_is_done(p_slot smallint) returns boolean
language sql stable
as $$
    select exists (select from mill.model)
       and not exists (
        select
          from mill.task d
          left join mill.task s on s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt
          cross join mill.setting
         where d.kind = 'download' and d.slot = p_slot
           and (exists (select from mill.submission r where r.task_id = d.task_id and r.state = 'received')
                or 'ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                -- a download can be made again: not for it does everybody wait
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                   and exists (select from mill.thumbnail_slot where state <> 'full')
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;

create function mill.add_model(p_name text, p_pretrained text, p_digest text, p_dims integer, out model_id integer, out queued integer)
language plpgsql
as $$
begin
    insert into mill.model (name, pretrained, digest, dims) values (p_name, p_pretrained, p_digest, p_dims)
    on conflict (digest) do update set name = excluded.name, pretrained = excluded.pretrained
    returning model.model_id into model_id;
    perform mill.queue_scoring(t.batch_id, t.attempt, add_model.model_id)
       from mill.task t where t.kind = 'download' and t.state = 'done' and t.slot is not null;
    select count(*) into queued from mill.task t where t.model_id = add_model.model_id and t.state = 'ready';
end
$$;

comment on function mill.add_model is 'Makes a model known, and queues the batches whose thumbnails are still there.';

create or replace function mill.withdraw_downloads(p_submissions bigint[], why text) returns integer
language plpgsql
as $$
declare
    queued integer;
begin
    perform from mill.task x
      where x.task_id in (select y.task_id from mill.submission y where y.submission_id = any (p_submissions))
      order by x.task_id for update;
    insert into mill.withdrawn (submission_id, reason)
    select x, why from unnest(p_submissions) x
    on conflict do nothing;
    with gone as (
        select y.batch_id, y.attempt, x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.submission_id = any (p_submissions) and not y.is_check
    ), again as (
        select g.batch_id, array_agg(distinct d.n) as positions
          from gone g
          join mill.download d on d.batch_id = g.batch_id and d.attempt = g.attempt and d.submission_id = g.submission_id
         where not exists (select from mill.current_download c where c.batch_id = d.batch_id and c.n = d.n)
           and not exists (select from mill.task o where o.kind = 'download' and o.batch_id = d.batch_id and o.attempt > g.attempt
                              and o.state <> 'done' and not o.is_check and (o.positions is null or d.n = any (o.positions)))
         group by g.batch_id
    )
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', a.batch_id, mill.next_attempt(a.batch_id), a.positions
      from again a order by a.batch_id;
    get diagnostics queued = row_count;
    return queued;
end
$$;

-- Nothing here asks whether the worker is disabled: a rehearsal in a transaction that is rolled back must
-- not end its sessions, which no rollback brings back.
create or replace function mill.quarantine_worker(
    p_name text, p_since timestamptz, why text,
    out leases integer, out rejected integer, out withdrawn integer, out rows bigint, out tasks integer
)
language plpgsql
as $$
#variable_conflict use_column
declare
    w mill.worker;
    t mill.task;
    s mill.submission;
    n integer;
begin
    select * into w from mill.worker where name = p_name;
    if not found then
        return;
    end if;
    leases := 0;
    rejected := 0;
    tasks := 0;
    -- tasks before leases and submissions, in order of their number: as every function locks
    for t in
        select x.* from mill.task x
         where exists (select from mill.lease l join mill.instance i using (instance_id)
                        where l.task_id = x.task_id and l.ended_at is null and i.worker_id = w.worker_id)
         order by x.task_id for update
    loop
        perform mill.end_lease(l.lease_id, 'expired')
           from mill.lease l join mill.instance i using (instance_id)
          where l.task_id = t.task_id and l.ended_at is null and i.worker_id = w.worker_id;
        if found then
            update mill.task set state = 'ready', ready_at = now(), changed_at = now() where task_id = t.task_id;
            leases := leases + 1;
        end if;
    end loop;
    for s in
        select x.* from mill.submission x
         where x.worker_id = w.worker_id and x.state = 'received' and x.received_at >= coalesce(p_since, '-infinity')
         order by x.submission_id
    loop
        perform from mill.task where task_id = s.task_id for update;
        select * into s from mill.submission where submission_id = s.submission_id for update;
        if s.state = 'received' then
            perform mill.reject(s, why);
            rejected := rejected + 1;
        end if;
    end loop;
    select count(*), coalesce(sum(x.row_count), 0) into withdrawn, rows
      from mill.submission x
     where x.worker_id = w.worker_id and x.state = 'accepted' and x.received_at >= coalesce(p_since, '-infinity')
       and not exists (select from mill.withdrawn y where y.submission_id = x.submission_id);
    tasks := mill.withdraw_downloads(array(
        select x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
           and x.received_at >= coalesce(p_since, '-infinity')), why);
    for s in
        select x.* from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind <> 'download'
           and x.received_at >= coalesce(p_since, '-infinity')
           and not exists (select from mill.withdrawn z where z.submission_id = x.submission_id)
         order by x.submission_id
    loop
        perform mill.withdraw(s.submission_id, why);
        tasks := tasks + 1;
    end loop;
end
$$;

comment on function mill.quarantine_worker is
    'Takes back all that a worker contributed since then (null: ever): ends its leases, rejects what awaits acceptance, withdraws what was '
    'accepted, and queues it again. All null where there is no such worker. The worker itself is ended by disable_worker.';

-- A parked task whose thumbnails are gone cannot go on where it stopped: what it lacks is fetched anew.
create or replace function mill.retry_task(p_task_id bigint) returns text
language plpgsql
as $$
declare
    t mill.task;
    d mill.task;
    anew integer[];
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if not found or t.state <> 'parked' or t.is_check then  -- a check that was parked is void
        return null;
    end if;
    select * into d from mill.task x where x.kind = 'download' and x.batch_id = t.batch_id and x.attempt = t.attempt;
    if t.kind = 'extract' or d.slot is not null
       or t.kind = 'download' and not exists (select from mill.download x where x.batch_id = t.batch_id and x.attempt = t.attempt) then
        update mill.task set state = 'ready', tries = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.to_score(t) where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), anew where anew is not null;
    return 'download';
end
$$;

-- Later, and not in a loop: the same minute's second try meets the same trouble.
create or replace function mill.retry_outcomes(
    p_outcomes text[], p_first_batch bigint, p_last_batch bigint, p_at_once boolean,
    out batches bigint, out urls bigint, out busy bigint
)
language plpgsql
as $$
#variable_conflict use_column
begin
    with found as (
        select d.batch_id, array_agg(d.n order by d.n) as positions
          from mill.current_download d
          join mill.outcome o on o.code = d.outcome
          join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
         where d.batch_id between p_first_batch and p_last_batch
           and case when p_outcomes is null then o.retry else o.name = any (p_outcomes) end
           and (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n)
               < (select url_attempts from mill.setting)
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removal r where r.md5 = p.url_key)
         group by d.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ (t.attempt - 1)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, max(x.changed_at) as ended_at, bool_or(x.state <> 'done' and not x.is_check) as busy
                from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from planned where not busy
         order by batch_id
        on conflict do nothing  -- another's retry came first
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where planned.busy)
      into batches, urls, busy
      from queued;
end
$$;

-- Not by whoever found it dead, nor from their network.
create or replace function mill.retry_doubted(p_first_batch bigint, p_last_batch bigint, out batches bigint, out urls bigint, out busy bigint)
language plpgsql
as $$
begin
    with found as (
        select l.batch_id, array_agg(l.n order by l.n) as positions,
               (select array_agg(distinct s.worker_id)
                  from mill.download x join mill.submission s using (submission_id)
                 where x.batch_id = l.batch_id and x.n = any (array_agg(l.n))) as finders
          from report.dead_link l
         where l.batch_id between p_first_batch and p_last_batch and not l.believed
           and (select count(*) from mill.download x where x.batch_id = l.batch_id and x.n = l.n) < (select url_attempts from mill.setting)
           and not exists (select from mill.removal r join mill.pair p on p.url_key = r.md5 where p.batch_id = l.batch_id and p.n = l.n)
         group by l.batch_id
    ), planned as (
        select f.*, exists (select from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id
                               and x.state <> 'done' and not x.is_check) as is_busy
          from found f
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, avoid_workers)
        select 'download', batch_id, mill.next_attempt(batch_id), positions, finders
          from planned where not is_busy
         order by batch_id
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where is_busy)
      into batches, urls, busy
      from queued;
end
$$;

create view mill.current_score as
select s.*
  from mill.score s
  join mill.current_download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id);

comment on view mill.current_score is 'The scores that count for a pair: not withdrawn, and of the download that counts.';

create view report.score as
select mill.sample_id(s.batch_id, s.n) as sample_id, s.batch_id, s.n, m.name as model, m.pretrained,
       o.name as outcome, s.similarity
  from mill.current_score s
  join mill.model m using (model_id)
  join mill.score_outcome o on o.code = s.outcome;

comment on view report.score is 'Every score that counts. Name a range of batch_id.';

create view report.score_count as
select m.name as model, coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n and d.outcome = 0
 cross join mill.model m
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 3;

comment on view report.score_count is 'Downloaded pairs by model and by how their scoring ended. Reads every pair.';

create view report.model as
select name, pretrained, digest, dims, active_since from mill.model;

comment on view report.model is 'The models that score.';

comment on column report.model.name is 'open_clip''s model name, or the folder of a model';

create or replace function mill.take_canaries(
    p_lease_id bigint, p_places integer[], p_outcome smallint[], p_sha256 bytea[], p_dhash bigint[]
) returns integer[]
language plpgsql
as $$
declare
    a mill.assignment;
    n integer[];
begin
    select * into a from mill.assignment where lease_id = p_lease_id;
    if exists (
        select from unnest(p_places) p (place)
          left join unnest(a.positions) with ordinality as h (n, number) on h.number = p.place + 1
         where h.n is null and not p.place = any (a.canary_places)
    ) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    n := array(select h.n from unnest(p_places) with ordinality as p (place, number)
                 left join unnest(a.positions) with ordinality as h (n, number) on h.number = p.place + 1
                order by p.number);
    if array_position(n, null) is null then
        return n;
    end if;
    with answer as (
        select k.canary_id, mill.is_right(c, r.outcome, r.sha256, r.dhash) as is_right
          from unnest(p_places, p_outcome, p_sha256, p_dhash) as r (place, outcome, sha256, dhash)
          join unnest(a.canary_places, a.canary_ids) as k (place, canary_id) using (place)
          join mill.canary c using (canary_id)
    ), counted as (
        update mill.canary c set answers = answers + 1 from answer x where c.canary_id = x.canary_id
    ), told as (
        select count(is_right) as compared, count(*) filter (where is_right) as agreed from answer
    )
    update mill.assignment x
       set (canary_places, canary_ids) = (
               select coalesce(array_agg(k.place), '{}'), coalesce(array_agg(k.canary_id), '{}')
                 from unnest(a.canary_places, a.canary_ids) as k (place, canary_id)
                where not k.place = any (p_places)),
           compared = x.compared + told.compared, agreed = x.agreed + told.agreed
      from told
     where x.lease_id = p_lease_id;
    return n;
end
$$;

create or replace function mill.draw_checks(t mill.task) returns void
language plpgsql
as $$
declare
    s mill.setting;
    w record;
    repeat_id bigint;
begin
    select * into s from mill.setting;
    if t.is_check or s.check_urls = 0 then
        return;
    end if;
    for w in
        select x.worker_id, x.streak, array_agg(y.submission_id) as submissions
          from mill.submission y join mill.worker x using (worker_id)
         where y.task_id = t.task_id and y.state = 'accepted' and x.disabled_at is null
         group by x.worker_id order by x.worker_id
    loop
        if w.streak is null then
            insert into mill.canary (url, sha256, dhash, by_admin)
            select p.url, d.sha256, d.dhash, false
              from (select * from mill.download x
                     where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id = any (w.submissions) and x.outcome = 0
                       and (select count(*) from mill.canary where not by_admin) < 1000
                     order by random() limit 5) d
              join mill.pair p using (batch_id, n)
            on conflict do nothing;
        elsif (w.streak < 10 or random() < 1.0 / w.streak)
              -- with so many undecided another one tells nothing new, and somebody has to do them
              and (select count(*) from mill.recheck r where r.worker_id = w.worker_id and r.state in ('open', 'disputed')) < 20 then
            repeat_id := mill.queue_check(t, array(
                select d.n from mill.download d
                 where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = any (w.submissions)
                 order by random() limit s.check_urls), array[w.worker_id]);
            insert into mill.recheck (worker_id, task_id, repeat_task_id) values (w.worker_id, t.task_id, repeat_id);
        end if;
    end loop;
end
$$;

-- A checker's own trouble is not held against the checked one: his success against another's failure counts only
-- where that failure is final. That both found nothing tells nothing: two who do no work say so of everything (it
-- left 0.6 % of lies in the simulation). Whether a link is dead is report.dead_link's business.
create or replace function mill.compare(p_task_id bigint, p_repeat_id bigint, p_worker_id integer, out compared integer, out agreed integer)
language sql stable
as $$
    select count(alike), count(*) filter (where alike)
      from mill.task t
      join mill.task r on r.task_id = p_repeat_id
      join mill.download a on a.batch_id = t.batch_id and a.attempt = t.attempt
      join mill.submission s on s.submission_id = a.submission_id and (s.worker_id = p_worker_id or p_worker_id is null)
      join mill.download b on b.batch_id = r.batch_id and b.attempt = r.attempt and b.n = a.n
      join mill.outcome ob on ob.code = b.outcome
     cross join lateral (select case
           when a.outcome = 0 and b.outcome = 0 then a.sha256 = b.sha256 or mill.look_alike(a.dhash, b.dhash)
           when b.outcome = 0 then false
           when a.outcome = 0 and not ob.retry and b.outcome <> 50 then false
       end as alike) x
     where t.task_id = p_task_id
$$;

comment on function mill.compare is
    'How the downloads of a task (of one worker; null: of all) compare with those of a task that repeats some of its positions.';

create or replace function api.judge_checks_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    r mill.recheck;
    judged integer := 0;
begin
    for r in
        select x.* from mill.recheck x
         where x.state in ('open', 'disputed')
           and (x.repeat_task_id is null
                or exists (select from mill.task t
                            where t.task_id = coalesce(x.second_task_id, x.repeat_task_id) and t.state in ('done', 'parked')))
         order by x.recheck_id limit 20
           for update skip locked
    loop
        perform mill.judge(r);
        judged := judged + 1;
    end loop;
    return judged;
end
$$;

comment on function api.judge_checks_v1 is 'Decides the checks whose repeats are done. Returns how many.';

create or replace function api.sweep_canaries_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
begin
    delete from mill.canary c
     where not c.by_admin
       and (c.answers >= 3 or c.added_at < now() - interval '7 days'  -- known by then, or stale
            or exists (select from mill.removal r where r.md5 = md5(c.url)::uuid or r.sha256 = c.sha256));
    get diagnostics swept = row_count;
    return swept;
end
$$;

create function mill.judge(r mill.recheck) returns void
language plpgsql
as $$
declare
    least_share constant real := (select agreement_min from mill.setting);
    last mill.task;
    found record;
    verdict text := 'void';
begin
    select r.compared, r.agreed into found;
    if r.repeat_task_id is not null then
        select * into last from mill.task where task_id = coalesce(r.second_task_id, r.repeat_task_id);
        found := mill.compare(r.task_id, last.task_id, r.worker_id);
    end if;
    if last.state = 'parked' or found.compared < 5 then
        null;  -- too little to tell
    elsif found.agreed >= least_share * found.compared then
        verdict := 'agreed';
    elsif r.repeat_task_id is null or mill.is_vouched(mill.repeated_by(last.task_id)) then
        verdict := 'failed';
    elsif r.state = 'open' then
        perform mill.dispute(r, last);
        return;
    elsif (select agreed >= least_share * compared and compared >= 5 from mill.compare(r.repeat_task_id, r.second_task_id, null)) then
        found := mill.compare(r.task_id, r.repeat_task_id, r.worker_id);
        verdict := 'failed';
    end if;
    update mill.recheck set state = verdict, compared = found.compared, agreed = found.agreed, decided_at = now()
     where recheck_id = r.recheck_id;
    if verdict = 'agreed' and r.state = 'disputed' then
        perform mill.blame_repeat(r);
    end if;
    -- to have answered canaries well proves little: whoever remembers URLs knows them
    if verdict = 'failed' or verdict = 'agreed' and r.repeat_task_id is not null then
        perform mill.count_check(r.worker_id, r.task_id, found.compared, found.agreed, r.repeat_task_id is null);
    end if;
end
$$;

comment on function mill.judge is
    'Decides a check. Where two do not agree, a third worker''s repeat decides which of them was wrong; that of an admin''s own worker decides at once.';

create or replace function mill.repeated_by(p_task_id bigint) returns integer
language sql stable
as $$
    select worker_id from mill.submission where task_id = p_task_id and state = 'accepted' order by row_count desc limit 1
$$;

create or replace function mill.dispute(r mill.recheck, t mill.task) returns void
language sql
as $$
    update mill.recheck
       set state = 'disputed',
           second_task_id = mill.queue_check(t, t.positions, array[r.worker_id, mill.repeated_by(t.task_id)] || array(
               -- where an admin's own worker is at work, it decides: liars who are many outvote the honest
               select w.worker_id from mill.worker w
                where w.kind = 'download' and w.streak is not null and w.disabled_at is null
                  and exists (select from (select * from mill.lease order by lease_id desc limit 1000) l
                                join mill.instance i using (instance_id) join mill.worker v using (worker_id)
                               where l.claimed_at > now() - interval '1 hour' and v.kind = 'download' and v.streak is null)))
     where recheck_id = r.recheck_id
$$;

create or replace function mill.count_check(p_worker_id integer, p_task_id bigint, p_compared integer, p_agreed integer, p_by_canaries boolean)
returns void
language plpgsql
as $$
declare
    least_share constant real := (select agreement_min from mill.setting);
    share constant real := p_agreed / greatest(p_compared, 1)::real;
    w mill.worker;
begin
    -- a moving average over some five checks: who is wrong in everything is stopped by the first one, who lets a tenth slip never
    update mill.worker
       set agreement = 0.7 * agreement + 0.3 * share,
           streak = case when share >= least_share then streak + 1 else 0 end,
           proven_at = case when share < least_share then null when streak >= 9 then coalesce(proven_at, now()) else proven_at end
     where worker_id = p_worker_id and streak is not null and disabled_at is null
    returning * into w;
    if not found or share >= least_share then
        return;
    end if;
    if w.agreement >= least_share then
        perform mill.take_back(p_worker_id, p_task_id, 'a check of it failed');
        return;
    end if;
    update mill.worker
       set disabled_at = now(), stopped_because = format('others found only %s %% of its downloads alike', round(w.agreement * 100))
     where worker_id = p_worker_id;
    -- what came in before the last check that agreed was drawn stays; but who answers canaries wrong may have friends
    perform mill.quarantine_worker(
        w.name,
        (select max(opened_at) from mill.recheck r
          where r.worker_id = p_worker_id and r.state = 'agreed' and r.repeat_task_id is not null and not p_by_canaries
            and (select stopped_because is null from mill.worker c
                  where c.worker_id = mill.repeated_by(coalesce(r.second_task_id, r.repeat_task_id)))),
        'its worker was stopped: others did not find the same');
    perform mill.check_again(p_worker_id);
end
$$;

comment on function mill.count_check is
    'Counts a check''s share of agreement for or against a worker: a failed one takes the task''s downloads back; a bad average stops the worker '
    'and takes back all since its last check that agreed, and all there is where canaries told it.';

create or replace function mill.check_again(p_stopped_id integer) returns void
language plpgsql
as $$
declare
    r record;
begin
    for r in
        select x.worker_id, x.task_id, t as repeat
          from mill.submission s
          join mill.recheck x on s.task_id = coalesce(x.second_task_id, x.repeat_task_id)
          join mill.task t on t.task_id = s.task_id
          join mill.worker w on w.worker_id = x.worker_id
         where s.worker_id = p_stopped_id and t.is_check and x.state = 'agreed' and w.disabled_at is null
         order by x.recheck_id desc limit 20
    loop
        insert into mill.recheck (worker_id, task_id, repeat_task_id)
        values (r.worker_id, r.task_id, mill.queue_check(r.repeat, (r.repeat).positions, array[r.worker_id, p_stopped_id]));
    end loop;
end
$$;

comment on function mill.check_again is 'Has others check what a worker that was stopped had found right: liars have friends.';

comment on column report.score.sample_id is 'As report.pair.sample_id';
comment on column report.score.batch_id is 'As report.pair.batch_id';
comment on column report.score.n is 'As report.pair.n';
comment on column report.score.model is 'Name of the model';
comment on column report.score.pretrained is 'Its weights: open_clip''s tag or a path';
comment on column report.score.outcome is 'scored, or why not';
comment on column report.score.similarity is 'Cosine similarity of image and text; null unless scored';
comment on column report.score_count.model is 'Name of the model';
comment on column report.score_count.language is 'CLD3''s language where it is reliable, else nolang';
comment on column report.score_count.outcome is 'scored, or why not; waiting while it has not been tried';
comment on column report.score_count.pairs is 'How many pairs';
comment on column report.model.pretrained is 'open_clip''s tag or a checkpoint''s path; empty where the name says it all';
comment on column report.model.digest is 'sha256 of the weights';
comment on column report.model.dims is 'Length of an embedding';
comment on column report.model.active_since is 'Since when new batches are scored by it';

revoke all on all functions in schema mill, api from public;

do $$
begin
    execute format('grant select on report.score, report.score_count, report.model to %I', left(current_database(), 40) || '_researcher');
end
$$;

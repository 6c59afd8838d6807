-- Without checks: what they found goes with their tables.

-- checks are nobody's work any more
update mill.task set state = 'parked', reason = 'a check, and the schema before checks' where is_check and state <> 'done';
update mill.lease l set ended_at = clock_timestamp(), ended_as = 'expired' from mill.task t where t.task_id = l.task_id and l.ended_at is null and t.is_check;

drop view report.dead_link;
drop view report.recheck;
drop view report.worker;
drop function mill.pick(text, integer, integer, boolean);

-- Identity is session_user, never an argument.
create or replace function mill.me(wanted_kind text default null) returns mill.worker
language plpgsql stable
as $$
declare
    w mill.worker;
begin
    select * into w from mill.worker where login = session_user;
    if not found then
        perform mill.refuse('PM002', 'this login is not a worker; an admin makes one with: pairmill worker add NAME --kind KIND');
    elsif w.disabled_at is not null then
        perform mill.refuse('PM002', format('worker %s was disabled by an admin', w.name));
    elsif wanted_kind is not null and w.kind <> wanted_kind then
        perform mill.refuse('PM002', format('worker %s is of kind %s, not %s', w.name, w.kind, wanted_kind));
    end if;
    return w;
end
$$;
comment on function mill.me is 'The calling worker; refused where the login is none, is disabled, or is of another kind.';

create or replace function mill.end_lease(p_lease_id bigint, how text) returns void
language sql
as $$
    update mill.lease set ended_at = clock_timestamp(), ended_as = how where lease_id = p_lease_id and ended_at is null
$$;
comment on function mill.end_lease is 'Ends a lease, once.';

create or replace function api.hello_v1(
    p_version text,
    p_protocol integer,
    out instance_id bigint,
    out name text,
    out kind text,
    out heartbeat_seconds integer
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    s mill.setting;
begin
    select * into s from mill.setting;
    if p_protocol < s.min_protocol then
        perform mill.refuse('PM004', format('this worker speaks protocol %s and the database needs %s: upgrade pairmill', p_protocol, s.min_protocol));
    end if;
    insert into mill.instance (worker_id, version, protocol)
    values (w.worker_id, left(p_version, 100), p_protocol)
    returning instance.instance_id into instance_id;
    name := w.name;
    kind := w.kind;
    heartbeat_seconds := greatest(1, s.lease_seconds / 4);
end
$$;
comment on function api.hello_v1 is 'First call of a worker process. Gives it its instance number.';

-- A claim never touches the result tables. MATERIALIZED, and not IN (subselect): under some plans
-- the subselect is run again for every row, and LIMIT 2 took 1,000 tasks.
create function mill.pick(p_kind text, p_model_id integer, p_has_slot boolean default false) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and model_id is not distinct from p_model_id
           and (slot is not null or not p_has_slot)
         order by task_id
         limit 1
           for update skip locked
    )
    update mill.task t
       set state = 'leased', changed_at = now()
      from picked
     where t.task_id = picked.task_id
    returning t.*
$$;
comment on function mill.pick is 'Marks the oldest ready task of a kind leased and returns it; p_has_slot: of those that have a slot of the ring.';

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
            t := mill.pick(w.kind, m, true);  -- one that has its slot already: a retry, a lost lease
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

create or replace function mill.pending(kinds text[]) returns boolean
language sql stable
as $$
    select exists (select from mill.task where kind = any (kinds) and state in ('ready', 'leased', 'submitted'))
$$;
comment on function mill.pending is 'Whether a task of these kinds is ready, leased or awaiting acceptance.';

create or replace function api.urls_v1(p_lease_id bigint) returns table (n integer, url text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
begin
    return query select d.n, d.url from mill.to_download(t) d order by d.n;
end
$$;
comment on function api.urls_v1 is 'What is left to fetch under this lease: what an earlier holder submitted is not asked for again.';

create or replace function api.submit_opt_outs_v1(
    p_lease_id bigint,
    p_origin text[],
    p_file text[],
    p_http_status smallint[],
    p_rules text[],
    p_age real[]
) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    me mill.worker := mill.me('download');
    kept integer;
begin
    if array[cardinality(p_file), cardinality(p_http_status), cardinality(p_rules), cardinality(p_age)]
       is distinct from array_fill(cardinality(p_origin), array[4])
       or cardinality(p_origin) > (select 3 * batch_size from mill.setting)
       or (select sum(octet_length(r)) from unnest(p_rules) r) > 8000000
       or exists (
        select
          from unnest(p_origin, p_file, p_http_status, p_rules, p_age) as r (origin, file, http_status, rules, age)
         where num_nulls(r.origin, r.file, r.rules, r.age) > 0
            or length(r.origin) > 300 or length(r.rules) > 65536
            or r.file not in ('robots.txt', 'tdmrep.json', 'ai.txt')
            or r.http_status not between 100 and 999
            or not r.age between 0 and 864000
    ) then
        perform mill.refuse('PM003', 'a host''s file is malformed: an unknown name, a number out of range, or too long');
    end if;
    insert into mill.host_file as f (origin, file, worker_id, http_status, rules, read_at)
    select distinct on (r.origin, r.file)
           r.origin, r.file, me.worker_id, r.http_status, r.rules, now() - make_interval(secs => r.age)
      from unnest(p_origin, p_file, p_http_status, p_rules, p_age) as r (origin, file, http_status, rules, age)
      -- of other hosts a worker has nothing to say
     where r.origin in (select mill.origin(p.url) from mill.pair p where p.batch_id = t.batch_id)
     order by r.origin, r.file, r.age
    on conflict (origin, file, worker_id) do update
       set http_status = excluded.http_status, rules = excluded.rules, read_at = excluded.read_at;
    get diagnostics kept = row_count;
    return kept;
end
$$;
comment on function api.submit_opt_outs_v1 is
    'Keeps what files of the batch''s hosts said, for other batches; what is of no host of the batch is left out. Returns how many were kept.';

create or replace function api.submit_download_v2(
    p_lease_id bigint,
    p_part integer,
    p_positions integer[],
    p_outcome smallint[],
    p_http_status smallint[],
    p_bytes integer[],
    p_width integer[],
    p_height integer[],
    p_md5 uuid[],
    p_sha256 bytea[],
    p_dhash bigint[],
    p_thumbnail_positions integer[],
    p_thumbnails bytea[],
    p_refused integer[],
    p_signal text[],
    p_value text[],
    p_source text[],
    p_age real[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    rows constant integer := cardinality(p_positions);
    limit_bytes constant integer := (select thumbnail_max_bytes from mill.setting);
begin
    if id is not null then
        return id;
    end if;
    if rows is null or rows = 0 or p_part is null or array_ndims(p_positions) <> 1
       or array[cardinality(p_outcome), cardinality(p_http_status), cardinality(p_bytes), cardinality(p_width),
                cardinality(p_height), cardinality(p_md5), cardinality(p_sha256), cardinality(p_dhash)]
          is distinct from array_fill(rows, array[8]) then
        perform mill.refuse('PM003', 'a submission needs a part number and one to batch_size positions, all arrays of one length');
    end if;
    if p_refused is null or cardinality(p_refused) > rows or cardinality(p_thumbnail_positions) > rows then
        perform mill.refuse('PM003', 'there are more thumbnails or opt-outs than positions');
    end if;
    if array[cardinality(p_signal), cardinality(p_value), cardinality(p_source), cardinality(p_age)]
       is distinct from array_fill(cardinality(p_refused), array[4]) then
        perform mill.refuse('PM003', 'there must be a signal, a value, a source and an age for each position that opted out');
    end if;
    if cardinality(p_thumbnails) is distinct from cardinality(p_thumbnail_positions) then
        perform mill.refuse('PM003', 'there must be one position for each thumbnail');
    end if;
    -- one pass over what is left to do finds strangers, repeats and what another part covers
    if rows <> (select count(*) from mill.to_download(t) d where d.n = any (p_positions))
       or rows <> (select count(distinct p) from unnest(p_positions) p) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    if exists (
        select
          from unnest(p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash)
               as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
         where not exists (select from mill.outcome o where o.code = r.outcome)
            or r.http_status not between 100 and 999  -- some sites say 999
            or r.bytes < 0 or r.width < 1 or r.height < 1
            or octet_length(r.sha256) <> 32
            or (r.outcome = 50) <> (r.n = any (p_refused))
            or (r.outcome = 0) <> (r.n = any (coalesce(p_thumbnail_positions, '{}')))
            or r.outcome = 0 and num_nulls(r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash) > 0
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a number out of range, or a success without its image, or an opt-out without its evidence');
    end if;
    if exists (
        select from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
         where coalesce(octet_length(image), 0) not between 1 and limit_bytes
            or not n = any (p_positions)
    ) or cardinality(p_thumbnail_positions) <> (select count(distinct p) from unnest(p_thumbnail_positions) p) then
        perform mill.refuse('PM003', format('a thumbnail is empty, above %s bytes, given twice, or of no position here', limit_bytes));
    end if;
    if exists (
        select from unnest(p_refused, p_signal, p_value, p_source, p_age) as r (n, signal, value, source, age)
         where num_nulls(r.n, r.signal, r.value, r.source, r.age) > 0
            or length(r.signal) > 50 or length(r.value) > 500 or length(r.source) > 2100
            or not r.age between 0 and 864000
            or not r.n = any (p_positions)
    ) or cardinality(p_refused) <> (select count(distinct p) from unnest(p_refused) p) then
        perform mill.refuse('PM003', 'the evidence of an opt-out is malformed: too long, too old, given twice, or of no position here');
    end if;
    id := mill.receive(t, p_lease_id, p_part, rows);
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash,
            p_refused, p_signal, p_value, p_source,
            array(select now() - make_interval(secs => age) from unnest(p_age) with ordinality u (age, place) order by place));
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image);
    return id;
end
$$;
comment on function api.submit_download_v2 is
    'Hands over the outcomes of some positions, as parallel arrays, with the thumbnails of the successes. Idempotent by '
    '(lease, part). Refused whole, changing nothing, if anything in it is wrong.';

create or replace function api.complete_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
    missing bigint;
begin
    select count(*) into missing
      from (select n from mill.to_download(t) where t.kind = 'download'
            union all
            select n from mill.to_score(t) where t.kind = 'score') x;
    if t.kind = 'extract' or missing > 0 then
        perform mill.refuse('PM005', format('task %s is not complete: %s positions were not submitted', t.task_id, missing));
    end if;
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    perform mill.settle(t.task_id);
end
$$;
comment on function api.complete_v1 is 'Ends a download or score lease whose every position was submitted; refused otherwise.';

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
    if exists (select from mill.to_download(t) where t.kind = 'download')
       or exists (select from mill.to_score(t) where t.kind = 'score') then
        perform mill.put_back(p_task_id, 'a part of what was submitted was rejected', true);
        return;
    end if;
    update mill.task set state = 'done', reason = null, changed_at = now() where task_id = p_task_id;
    if t.kind = 'download' then
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model order by model_id;
    end if;
end
$$;
comment on function mill.settle is 'Ends a submitted task whose submissions are all decided, and makes what follows from it.';

-- p_unknown: 16 bytes each, of the extraction p_submission_id, by a filter that was in step at p_merge_number. It is
-- used only where that is the next submission and no merge came between: else every key is looked up.
create or replace function api.accept_next_v2(
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
    -- task before submission: the order in which every function locks. A task that its holder keeps locked is
    -- passed over, or one open transaction would stop the acceptance of everybody's work
    select x.* into s
      from mill.submission x join mill.task y using (task_id)
     where x.state = 'received' order by x.submission_id limit 1
       for update of y skip locked;
    if not found then
        return;
    end if;
    select * into t from mill.task x where x.task_id = s.task_id;
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
            perform from mill.batch where batch_id = t.batch_id for no key update;  -- one new attempt after another
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
        select x.task_id, l.lease_id
          from mill.task x join mill.lease l using (task_id)
         where l.ended_at is null and l.expires_at <= clock_timestamp()
         order by x.task_id
           for update of x, l skip locked  -- a heartbeat that does not commit holds l
    loop
        -- looked at again under the lock: it may have been completed meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            perform mill.put_back(t.task_id, format('lease %s was lost: no heartbeat in time', t.lease_id), true);
            update mill.task set ready_at = now() where task_id = t.task_id;  -- another may try at once
            expired := expired + 1;
        end if;
    end loop;
    return expired;
end
$$;
comment on function api.expire_leases_v1 is 'Returns the tasks of late leases to the queue; what was submitted under them stays.';

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
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;
comment on function mill.slot_is_done is
    'Whether nobody needs a slot''s thumbnails any more: its downloads and their score tasks are done, or parked for long. '
    'False while there is no model: they were fetched to be scored.';

create or replace function api.empty_slots_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    w mill.worker := mill.me('steward');
    candidate smallint;
    emptied integer := 0;
begin
    for candidate in select slot from mill.thumbnail_slot where state <> 'empty' order by slot loop
        begin
            perform from mill.thumbnail_slot where slot = candidate for update;  -- no claim adds a batch
            continue when not mill.slot_is_done(candidate);
            execute format('truncate mill.thumbnail_s%s', candidate);
            update mill.task set slot = null where slot = candidate;
            update mill.thumbnail_slot set state = 'empty', batches = 0 where slot = candidate;
            emptied := emptied + 1;
        exception when lock_not_available then
            null;  -- a reader is at work; the next round tries again
        end;
    end loop;
    return emptied;
end
$$;
comment on function api.empty_slots_v1 is 'Truncates the thumbnail slots that nobody needs any more.';

create or replace function mill.add_worker(p_login name, p_name text, p_kind text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.worker (login, name, kind) values (p_login, p_name, p_kind);
    execute format('create role %I login password %L connection limit 8 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_' || p_kind);
    execute format('alter role %I set statement_timeout = %L', p_login, '10min');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', p_login, '5min');
end
$$;
comment on function mill.add_worker is 'Makes a worker and its login. The password is a SCRAM verifier, so that no log holds it.';

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
    -- downloads all at once: one new task a batch, and not one a part
    perform from mill.task x
      where x.task_id in (select y.task_id from mill.submission y where y.worker_id = w.worker_id and y.state = 'accepted')
        and x.kind = 'download' order by x.task_id for update;
    insert into mill.withdrawn (submission_id, reason)
    select x.submission_id, why from mill.submission x join mill.task y using (task_id)
     where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
       and x.received_at >= coalesce(p_since, '-infinity')
    on conflict do nothing;
    with gone as (
        select y.batch_id, y.attempt, x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
           and x.received_at >= coalesce(p_since, '-infinity')
    ), again as (
        select g.batch_id, array_agg(distinct d.n) as positions
          from gone g
          join mill.download d on d.batch_id = g.batch_id and d.attempt = g.attempt and d.submission_id = g.submission_id
         where not exists (select from mill.current_download c where c.batch_id = d.batch_id and c.n = d.n)
           and not exists (select from mill.task o where o.kind = 'download' and o.batch_id = d.batch_id and o.attempt > g.attempt
                              and o.state <> 'done' and (o.positions is null or d.n = any (o.positions)))
         group by g.batch_id
    )
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', a.batch_id, (select max(attempt) + 1 from mill.task x where x.kind = 'download' and x.batch_id = a.batch_id), a.positions
      from again a order by a.batch_id;
    get diagnostics tasks = row_count;
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
    if not found or t.state <> 'parked' then
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
    select 'download', t.batch_id, max(attempt) + 1, anew
      from mill.task where kind = 'download' and batch_id = t.batch_id
    having anew is not null;
    return 'download';
end
$$;
comment on function mill.retry_task is
    'Queues a parked task again. Returns the kind of work that was queued, or null where the task is not parked.';

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
              select max(x.attempt) as attempt, max(x.changed_at) as ended_at, bool_or(x.state <> 'done') as busy
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
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts. '
    'busy: batches left out, since a download of theirs is not done.';

create or replace function mill.prove_worker(p_name text, p_proven boolean) returns boolean
language sql
as $$
    update mill.worker set proven_at = case when p_proven then coalesce(proven_at, now()) end where name = p_name returning true
$$;
comment on function mill.prove_worker is 'Whether others rely on what this worker says a host allows. Null where there is no such worker.';

create view report.worker as
select w.name, w.kind, w.added_at, w.disabled_at,
       (select max(i.started_at) from mill.instance i where i.worker_id = w.worker_id) as started_at,
       (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) as live_leases,
       coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0)::bigint as rows_accepted
  from mill.worker w
  left join mill.submission s using (worker_id)
  left join mill.withdrawn x using (submission_id)
 group by w.worker_id;
comment on view report.worker is 'Workers and what was accepted of them.';
comment on column report.worker.name is 'What people call it';
comment on column report.worker.kind is 'extract, download, score or steward';
comment on column report.worker.added_at is 'When it was added';
comment on column report.worker.disabled_at is 'When it was disabled; null while it may work';
comment on column report.worker.started_at is 'When its newest process started';
comment on column report.worker.live_leases is 'Tasks that it holds now';
comment on column report.worker.rows_accepted is 'Rows accepted and not withdrawn: links, outcomes or scores';

drop function mill.take_back(integer, bigint, text);
drop function mill.check_again(integer);
drop function mill.count_check(integer, bigint, integer, integer, boolean);
drop function mill.blame_repeat(mill.recheck);
drop function mill.dispute(mill.recheck, mill.task);
drop function mill.repeated_by(bigint);
drop function mill.judge(mill.recheck);
drop function api.sweep_canaries_v1();
drop function api.judge_checks_v1();
drop function mill.compare(bigint, bigint, integer);
drop function mill.queue_check(mill.task, integer[], integer[]);
drop function mill.draw_checks(mill.task);
drop function mill.canaries_left(bigint);
drop function mill.is_right(mill.canary, smallint, bytea, bigint);
drop function mill.look_alike(bigint, bigint);
drop function mill.take_canaries(bigint, integer[], smallint[], bytea[], bigint[]);
drop function mill.shuffle(mill.task, bigint);
drop function mill.hide_canaries(mill.task, bigint);
drop function mill.set_network(text, text);
drop function mill.retry_doubted(bigint, bigint);
drop function mill.withdraw_downloads(bigint[], text);
drop function api.watchdog_v1(integer, integer);
drop function mill.give_back_places(smallint);
drop function mill.are_open(mill.task, integer[]);
drop function mill.is_covered(mill.task);
drop function mill.unfinished(integer);
drop function mill.next_attempt(bigint);
drop function mill.is_stranger(integer, integer[], boolean);
drop function mill.is_vouched(integer);

drop table mill.recheck;
drop table mill.canary;
drop table mill.assignment;
drop index mill.lease_instance_id_idx;
drop index mill.lease_unfinished_idx;
drop index mill.task_ready_idx;
create index task_ready_idx on mill.task (kind, task_id) where state = 'ready';
comment on table mill.instance is 'One process of a worker. Leases belong to it, so a restarted container does not keep its dead twin''s lease alive.';
alter table mill.setting drop column unfinished_per_hour;
alter table mill.setting drop column canaries_per_lease;
alter table mill.setting drop column agreement_min;
alter table mill.setting drop column check_urls;
alter table mill.task drop column avoid_workers;
alter table mill.task drop column is_check;
alter table mill.worker drop column stopped_because;
alter table mill.worker drop column agreement;
alter table mill.worker drop column streak;
alter table mill.worker drop column network;

revoke all on all functions in schema mill, api from public;

do $$
begin
    execute format('grant select on report.worker to %I', left(current_database(), 40) || '_researcher');
end
$$;

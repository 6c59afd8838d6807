-- What was withdrawn stays withdrawn.

drop function api.metrics_v1();
drop view report.queue;
drop view report.rate;
drop view report.leaderboard;
drop view report.table_size;
drop function mill.rotate_worker(text, text);
drop function mill.login_of(text);
drop function mill.quarantine_worker(text, timestamptz, text);
drop function mill.restored();

create or replace function mill.take_slot() returns smallint
language plpgsql
as $$
declare
    taken smallint;
begin
    update mill.thumbnail_slot t
       set batches = t.batches + 1,
           state = case when t.batches + 1 >= s.batches_per_slot then 'full' else 'filling' end
      from mill.setting s
     where t.slot = (select slot from mill.thumbnail_slot
                      where state <> 'full' order by state desc, slot limit 1 for update)
    returning t.slot into taken;
    return taken;
end
$$;
comment on function mill.take_slot is 'A slot for one more batch of thumbnails: the one that is filling, else an empty one, else null.';

drop function mill.pick(text, integer, boolean);

create function mill.pick(p_kind text, p_model_id integer) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and model_id is not distinct from p_model_id
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
comment on function mill.pick is 'Marks the oldest ready task of a kind leased and returns it.';

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
           and ('ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;
comment on function mill.slot_is_done is
    'Whether nobody needs a slot''s thumbnails any more: its downloads and their score tasks are done, or parked for long. '
    'False while there is no model: they were fetched to be scored.';

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
           for update of x skip locked
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

create or replace function mill.disable_worker(p_name text) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    update mill.worker set disabled_at = coalesce(disabled_at, now()) where name = p_name returning login into l;
    if not found then
        return false;
    end if;
    execute format('alter role %I nologin', l);
    perform pg_terminate_backend(pid) from pg_stat_activity where usename = l;
    return true;
end
$$;
comment on function mill.disable_worker is 'Ends a worker''s login and its sessions. Its leases run out; what was accepted stays.';

-- Calls of every kind of worker: register, claim, heartbeat, release, fail.

create function api.register_v1(
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
    -- a login that registers again and again has one row: an instance that has claimed nothing is used again
    update mill.instance i set version = mill.plain(left(p_version, 100)), protocol = p_protocol, started_at = now(), last_seen_at = now()
     where i.instance_id = (select u.instance_id from mill.instance u
                             where u.worker_id = w.worker_id
                               and not exists (select from mill.lease l where l.instance_id = u.instance_id)
                             limit 1 for no key update skip locked)
    returning i.instance_id into instance_id;
    if not found then
        insert into mill.instance (worker_id, version, protocol)
        values (w.worker_id, mill.plain(left(p_version, 100)), p_protocol)
        returning instance.instance_id into instance_id;
    end if;
    name := w.name;
    kind := w.kind;
    heartbeat_seconds := greatest(1, s.lease_seconds / 4);
end
$$;
comment on function api.register_v1 is
    'First call of a worker process. Returns its instance number: a new one, or one of the same worker under which nothing was claimed.';

-- Twice a minute at most, and of the calls that a worker repeats anyway: an update for each would be a dead row for each.
create function mill.saw(p_instance_id bigint) returns void
language sql
as $$
    update mill.instance set last_seen_at = now() where instance_id = p_instance_id and last_seen_at < now() - interval '30 seconds'
$$;
comment on function mill.saw is 'Notes a sign of life of a worker''s process.';

create function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l
     where l.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
$$;
comment on function mill.unfinished is 'Number of a worker''s leases that failed, were lost or were given back within the last hour.';

-- A claim never touches the result tables. MATERIALIZED, and not IN (subselect): under some plans
-- the subselect is run again for every row, and LIMIT 2 took 1,000 tasks.
-- "p_model_id is null or …", and not IS NOT DISTINCT FROM: the planner expects one row of that, so it read and sorted
-- every ready task: 16 ms with 90,000 WAT files, and 0.5 ms in the order of the index.
create function mill.pick_task(p_kind text, p_model_id integer, p_worker_id integer, p_has_slot boolean default false) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and (p_model_id is null or model_id = p_model_id)
           and (slot is not null or is_replica or not p_has_slot)  -- a replica's thumbnails are not kept
           and (not is_replica or (select mill.may_replicate(p_worker_id)))
           and (avoid_workers is null or mill.is_stranger(p_worker_id, avoid_workers, is_replica))
         order by is_replica desc, (for_model_id is not null), task_id
         limit 1
           for update skip locked
    )
    update mill.task t
       set state = 'leased', changed_at = now()
      from picked
     where t.task_id = picked.task_id
    returning t.*
$$;
comment on function mill.pick_task is
    'Marks a ready task of a kind leased and returns it: replicas first, then the oldest, backfills last; none that this worker must avoid. '
    'p_has_slot: only tasks that have a slot of the ring, or need none.';

create function mill.claimable(w mill.worker, p_kind text) returns mill.task_kind
language plpgsql stable
as $$
declare
    k mill.task_kind;
begin
    select * into k from mill.task_kind where name = coalesce(p_kind, w.kind) and worker_kind = w.kind;
    if not found then
        perform mill.refuse('PM002', format('worker %s is of kind %s, which claims no tasks of kind %s', w.name, w.kind, coalesce(p_kind, w.kind)));
    end if;
    return k;
end
$$;
comment on function mill.claimable is 'The kind of work of this name (null: the worker''s own), which the worker may claim; refused otherwise.';

create function api.claim_v1(
    p_instance_id bigint,
    p_model_digest text default null,
    p_kind text default null,
    out lease_id bigint,
    out task_id bigint,
    out payload jsonb
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    k constant mill.task_kind := mill.claimable(w, p_kind);
    s mill.setting;
    t mill.task;
    m integer;
begin
    select * into s from mill.setting;
    if not exists (select from mill.instance i where i.instance_id = p_instance_id and i.worker_id = w.worker_id) then
        perform mill.refuse('PM003', format('instance %s is not this worker''s: call register_v1 first', p_instance_id));
    end if;
    -- one worker's claims are counted one after another, or two at once would pass the limit together
    -- (not the worker's row: an uncommitted claim would hold up the worker's replications, and with them the steward)
    perform from mill.instance where instance_id = (select min(instance_id) from mill.instance where worker_id = w.worker_id) for no key update;
    perform mill.saw(p_instance_id);
    if (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) >= s.leases_per_worker then
        perform mill.refuse('PM003', format('this login holds %s live leases, the most that it may', s.leases_per_worker));
    end if;
    if mill.unfinished(w.worker_id) >= s.unfinished_per_hour then
        perform mill.refuse('PM003', format('%s leases of this login were failed, lost or given back within an hour, the most that may be: '
                                            'find out why, and start again later', s.unfinished_per_hour));
    end if;
    if k.needs_model then
        select model_id into m from mill.model where digest = p_model_digest and retired_at is null;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights, or it was retired; an admin adds it with: pairmill model add');
        end if;
        perform mill.note_presence(w.worker_id, m);
    end if;
    t := mill.pick_task(k.name, m, w.worker_id);
    if t.task_id is null then
        return;
    end if;
    if k.writes_thumbnails and t.slot is null and not t.is_replica then
        t.slot := mill.take_slot();
        if t.slot is null then  -- the ring is full: scoring has to catch up
            update mill.task set state = 'ready' where mill.task.task_id = t.task_id;
            t := mill.pick_task(k.name, m, w.worker_id, true);  -- one that has its slot already: a retry, a lost lease
            if t.task_id is null then
                return;
            end if;
        else
            update mill.task set slot = t.slot where mill.task.task_id = t.task_id;
        end if;
    end if;
    task_id := t.task_id;
    lease_id := (s.epoch::bigint << 40) + nextval('mill.lease_number');
    insert into mill.lease (lease_id, task_id, instance_id, worker_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id, w.worker_id,
            clock_timestamp() + make_interval(secs => coalesce(k.lease_seconds, s.lease_seconds)),
            clock_timestamp() + make_interval(secs => least(coalesce(k.lease_max_seconds, s.lease_max_seconds),
                                                            case when t.is_replica then 1800 end)));
    payload := mill.hook_payload(t, lease_id);
    return next;
end
$$;
comment on function api.claim_v1 is
    'Leases the oldest ready task of a kind that the caller may claim (null: of its own name): no row where there is none. '
    'payload: JSON of the kind''s hook; extract {wat_id, location, link_kinds, language_detector, last_attempt}; download {batch_id, attempt}; '
    'score {batch_id, attempt, count}, count being the rows that thumbnails_v1, or of a head embeddings_v1, must give; '
    'of an item {item_id, spec}.';

create function api.heartbeat_v1(p_lease_id bigint) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    left_seconds integer;
    instance bigint;
begin
    update mill.lease l
       set expires_at = least(l.deadline, clock_timestamp() + make_interval(secs => coalesce(k.lease_seconds, s.lease_seconds)))
      from mill.setting s, mill.instance i, mill.task t, mill.task_kind k
     where l.lease_id = p_lease_id
       and t.task_id = l.task_id
       and k.name = t.kind
       and i.instance_id = l.instance_id
       and i.worker_id = w.worker_id
       and l.ended_at is null
       and l.expires_at > clock_timestamp()
    returning extract(epoch from l.expires_at - clock_timestamp())::integer, l.instance_id into left_seconds, instance;
    if not found then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', p_lease_id));
    end if;
    perform mill.saw(instance);
    return left_seconds;
end
$$;
comment on function api.heartbeat_v1 is 'Extends a lease; returns the seconds left.';

create function api.release_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'released');
    update mill.task set state = 'ready', changed_at = now() where task_id = t.task_id;
end
$$;
comment on function api.release_v1 is 'Returns a task to the queue unfinished, and counts no attempt. Submitted parts stay.';

create function api.fail_v1(p_lease_id bigint, p_reason text, p_retry boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'failed');
    perform mill.requeue(t.task_id, p_reason, p_retry or t.is_replica);  -- no worker ends a replication by one call
end
$$;
comment on function api.fail_v1 is 'Returns a task as failed: ready again after a back-off, or discarded.';

-- Told to a disabled worker, too: it is the one call besides register_v1 that its login may make.
create function api.me_v1(
    p_with_rank boolean default false,
    out name text, out kind text, out state text, out why text, out added_at timestamptz, out disabled_at timestamptz,
    out version text, out last_seen_at timestamptz, out live_leases bigint,
    out rows_accepted bigint, out rows_accepted_last_day bigint, out rows_waiting bigint, out rows_rejected bigint, out rows_withdrawn bigint,
    out success_share real, out agreement real, out rank bigint, out ranked bigint, out is_shown boolean
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker;
begin
    select * into w from mill.worker x where x.login = session_user;
    if not found then
        perform mill.me();
    end if;
    name := w.name;
    kind := w.kind;
    added_at := w.added_at;
    disabled_at := w.disabled_at;
    is_shown := exists (select from mill.shown_worker s where s.worker_id = w.worker_id);
    why := mill.why_disabled(w);
    state := case when w.disabled_at is null then 'active' when w.stopped_because is null then 'disabled' else 'stopped' end;
    select i.version, i.last_seen_at into version, last_seen_at from mill.instance i where i.worker_id = w.worker_id order by i.last_seen_at desc limit 1;
    select count(*) into live_leases from mill.lease l join mill.instance i using (instance_id) where i.worker_id = w.worker_id and l.ended_at is null;
    select coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0),
           coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null and s.decided_at > now() - interval '1 day'), 0),
           coalesce(sum(s.row_count) filter (where s.state = 'received'), 0),
           coalesce(sum(s.row_count) filter (where s.state = 'rejected'), 0),
           coalesce(sum(s.row_count) filter (where x.submission_id is not null), 0),
           sum(s.success_count) filter (where s.state = 'accepted' and x.submission_id is null)::real
               / nullif(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0)
      into rows_accepted, rows_accepted_last_day, rows_waiting, rows_rejected, rows_withdrawn, success_share
      from mill.submission s left join mill.withdrawn x using (submission_id)
     where s.worker_id = w.worker_id;
    if w.kind <> 'download' then
        success_share := null;
    elsif exists (select from mill.replication r where r.worker_id = w.worker_id and r.state in ('agreed', 'failed')) then
        agreement := w.agreement;
    end if;
    if p_with_rank then  -- reads what was accepted from all workers of the kind
        select 1 + count(*) filter (where u.accepted > me_v1.rows_accepted), count(*) into rank, ranked
          from (select sum(s.row_count) as accepted
                  from mill.submission s join mill.worker o using (worker_id)
                 where o.kind = w.kind and s.state = 'accepted' and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)
                 group by s.worker_id having sum(s.row_count) > 0) u;
        if rows_accepted = 0 then
            rank := null;
        end if;
    end if;
end
$$;
comment on function api.me_v1 is
    'The calling worker: its state (active, disabled by an admin, or stopped by replication) and why, its live leases, its rows by state. success_share: '
    'successes among its accepted downloads; agreement: share of its checked downloads that others found alike; rank of ranked: its place among the '
    'workers of its kind that had rows accepted, where p_with_rank; is_shown: whether its owner wants it to be named on the public page.';

-- For a kind that needs a model, only tasks of that model and of its CLIP model count as its own and as upstream.
create function mill.pending(p_kinds text[], p_models integer[] default null) returns boolean
language sql stable
as $$
    select exists (select from mill.task where kind = any (p_kinds) and state in ('ready', 'leased', 'submitted')
                      and (p_models is null or model_id = any (p_models))
                      and not (is_replica and state = 'ready'))  -- there may be no worker that may do it
$$;
comment on function mill.pending is 'Whether a task of these kinds (and models) is ready, leased or awaiting acceptance.';

create function mill.pending_upstream(k mill.task_kind) returns boolean
language sql stable
as $$
    select mill.pending(k.upstream)
        or k.subject = 'batch' and exists (select from mill.batch where closed_at is null and pair_count > 0)
$$;
comment on function mill.pending_upstream is 'Whether unfinished tasks or open batches may yet lead to tasks of a kind.';

create function api.drained_v1(p_model_digest text default null, p_kind text default null) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    k mill.task_kind;
    models integer[];
begin
    if w.kind = 'steward' then
        return not exists (select from mill.task_kind x where mill.pending(array[x.name]) or mill.pending_upstream(x))
           and not exists (select from mill.thumbnail_slot where state <> 'empty' and mill.slot_is_done(slot));
    end if;
    k := mill.claimable(w, p_kind);
    if k.needs_model then  -- upstream of a tagger's tasks are those of its clip model
        models := array(select x from mill.model g, unnest(array[g.model_id, g.base_model_id]) x where g.digest = p_model_digest);
    end if;
    return not mill.pending_upstream(k) and not mill.pending(array[k.name], models);
end
$$;
comment on function api.drained_v1 is
    'Whether no task is left for a kind of the caller''s (and model), nor work upstream that may lead to one. '
    'Discarded tasks do not count.';

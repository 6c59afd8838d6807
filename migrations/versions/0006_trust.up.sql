-- Trust: samples of what a worker downloaded are downloaded again by others, canaries, dead links by network.
-- And limits: a watchdog on open transactions, leases left undone, temporary files, an instance for each hello.

CREATE TABLE mill.assignment (
	lease_id BIGINT NOT NULL,
	positions INTEGER[],
	canary_places INTEGER[] NOT NULL,
	canary_ids INTEGER[] NOT NULL,
	compared SMALLINT DEFAULT '0' NOT NULL,
	agreed SMALLINT DEFAULT '0' NOT NULL,
	CONSTRAINT assignment_pkey PRIMARY KEY (lease_id),
	CONSTRAINT assignment_lease_id_fkey FOREIGN KEY(lease_id) REFERENCES mill.lease (lease_id)
);
COMMENT ON TABLE mill.assignment IS 'What a download lease was handed, where canaries are among it; without a row its numbers are the batch''s.';
COMMENT ON COLUMN mill.assignment.lease_id IS 'The lease';
COMMENT ON COLUMN mill.assignment.positions IS 'n of each URL, in the shuffled order in which the worker got them; null where a canary is. Null as a whole until it asked for them';
COMMENT ON COLUMN mill.assignment.canary_places IS 'Which places, from 0, hold canaries; answered ones go';
COMMENT ON COLUMN mill.assignment.canary_ids IS 'The canaries, parallel to canary_places';
COMMENT ON COLUMN mill.assignment.compared IS 'Canaries answered that could be compared';
COMMENT ON COLUMN mill.assignment.agreed IS 'Of those, the right ones';

CREATE TABLE mill.canary (
	canary_id INTEGER GENERATED ALWAYS AS IDENTITY,
	url TEXT NOT NULL,
	sha256 BYTEA,
	dhash BIGINT,
	by_admin BOOLEAN NOT NULL,
	answers INTEGER DEFAULT '0' NOT NULL,
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
	CONSTRAINT canary_pkey PRIMARY KEY (canary_id),
	CONSTRAINT canary_url_key UNIQUE (url)
);
COMMENT ON TABLE mill.canary IS 'A URL with a known answer, given to workers among their own.';
COMMENT ON COLUMN mill.canary.canary_id IS 'Key';
COMMENT ON COLUMN mill.canary.url IS 'The URL';
COMMENT ON COLUMN mill.canary.sha256 IS 'sha256 of its image, 32 bytes; null: there is no image';
COMMENT ON COLUMN mill.canary.dhash IS 'As download.dhash, where it is known';
COMMENT ON COLUMN mill.canary.by_admin IS 'An admin gave it; else it was drawn from what a proven worker downloaded';
COMMENT ON COLUMN mill.canary.answers IS 'How often it was answered';
COMMENT ON COLUMN mill.canary.added_at IS 'When it was added';

CREATE TABLE mill.recheck (
	recheck_id BIGINT GENERATED ALWAYS AS IDENTITY,
	worker_id INTEGER NOT NULL,
	task_id BIGINT NOT NULL,
	repeat_task_id BIGINT,
	second_task_id BIGINT,
	state TEXT DEFAULT 'open' NOT NULL CONSTRAINT recheck_state_check CHECK (state in ('open', 'disputed', 'agreed', 'failed', 'void')),
	compared INTEGER DEFAULT '0' NOT NULL,
	agreed INTEGER DEFAULT '0' NOT NULL,
	opened_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
	decided_at TIMESTAMP WITH TIME ZONE,
	CONSTRAINT recheck_pkey PRIMARY KEY (recheck_id),
	CONSTRAINT recheck_worker_id_fkey FOREIGN KEY(worker_id) REFERENCES mill.worker (worker_id),
	CONSTRAINT recheck_task_id_fkey FOREIGN KEY(task_id) REFERENCES mill.task (task_id),
	CONSTRAINT recheck_repeat_task_id_fkey FOREIGN KEY(repeat_task_id) REFERENCES mill.task (task_id),
	CONSTRAINT recheck_second_task_id_fkey FOREIGN KEY(second_task_id) REFERENCES mill.task (task_id)
);
CREATE INDEX recheck_open_idx ON mill.recheck (recheck_id) WHERE state in ('open', 'disputed');
CREATE INDEX recheck_worker_id_idx ON mill.recheck (worker_id);
COMMENT ON TABLE mill.recheck IS 'A check of what a worker downloaded: by another''s repeat of a sample, or by canaries.';
COMMENT ON COLUMN mill.recheck.recheck_id IS 'Key';
COMMENT ON COLUMN mill.recheck.worker_id IS 'Who is checked';
COMMENT ON COLUMN mill.recheck.task_id IS 'The task whose downloads are checked';
COMMENT ON COLUMN mill.recheck.repeat_task_id IS 'The task that repeats a sample; null for canaries';
COMMENT ON COLUMN mill.recheck.second_task_id IS 'The task that repeats it once more, since the first did not agree';
COMMENT ON COLUMN mill.recheck.state IS 'open, disputed (a third worker decides), agreed, failed, or void (nothing could be told)';
COMMENT ON COLUMN mill.recheck.compared IS 'Positions that could be compared';
COMMENT ON COLUMN mill.recheck.agreed IS 'Of those, positions that ended alike';
COMMENT ON COLUMN mill.recheck.opened_at IS 'When it was drawn';
COMMENT ON COLUMN mill.recheck.decided_at IS 'When it was decided';

alter table mill.worker add column network TEXT;
COMMENT ON COLUMN mill.worker.network IS 'Where it connects from, in the admin''s words; two networks must find a link dead';
alter table mill.worker add column streak INTEGER DEFAULT '0';
COMMENT ON COLUMN mill.worker.streak IS 'Checks in a row that agreed with its downloads; null: an admin vouches, it is not checked';
alter table mill.worker add column agreement REAL DEFAULT '1' NOT NULL;
COMMENT ON COLUMN mill.worker.agreement IS 'Share of its checked downloads that others found alike: a moving average, the last check by 0.3';
alter table mill.worker add column stopped_because TEXT;
COMMENT ON COLUMN mill.worker.stopped_because IS 'Why it was disabled by the trust check and not by an admin';
alter table mill.task add column is_check BOOLEAN DEFAULT 'false' NOT NULL;
COMMENT ON COLUMN mill.task.is_check IS 'download: repeats a sample of another''s; nothing that it gives counts';
alter table mill.task add column avoid_workers INTEGER[];
COMMENT ON COLUMN mill.task.avoid_workers IS 'download: these workers, and those of their networks, may not claim it; null: all may';
alter table mill.setting add column check_urls SMALLINT DEFAULT '50' NOT NULL CONSTRAINT setting_check_urls_check CHECK (check_urls between 0 and 1000);
COMMENT ON COLUMN mill.setting.check_urls IS 'Size of the sample of a download that another worker repeats; 0: no checks';
alter table mill.setting add column agreement_min REAL DEFAULT '0.8' NOT NULL CONSTRAINT setting_agreement_min_check CHECK (agreement_min between 0 and 1);
COMMENT ON COLUMN mill.setting.agreement_min IS 'A check with a smaller share of agreement fails; a worker with a smaller average is stopped';
alter table mill.setting add column canaries_per_lease SMALLINT DEFAULT '20' NOT NULL CONSTRAINT setting_canaries_per_lease_check CHECK (canaries_per_lease between 0 and 500);
COMMENT ON COLUMN mill.setting.canaries_per_lease IS 'URLs with known answers among those of a download lease, at most one in twenty';
alter table mill.setting add column unfinished_per_hour INTEGER DEFAULT '200' NOT NULL;
COMMENT ON COLUMN mill.setting.unfinished_per_hour IS 'Leases that one login may fail, lose or give back within an hour; then it claims nothing more';
drop index mill.task_ready_idx;
CREATE INDEX task_ready_idx ON mill.task (kind, is_check desc, task_id) WHERE state = 'ready';
CREATE INDEX lease_instance_id_idx ON mill.lease (instance_id);
CREATE INDEX lease_unfinished_idx ON mill.lease (ended_at) WHERE ended_as <> 'completed';
COMMENT ON TABLE mill.instance IS 'A process of a worker, or several that said hello before any of them had claimed. Leases belong to it.';
update mill.worker set streak = null where proven_at is not null;

drop function mill.pick(text, integer, boolean);

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
    elsif w.stopped_because is not null then
        perform mill.refuse('PM002', format('worker %s was stopped: %s; ask the admin', w.name, w.stopped_because));
    elsif w.disabled_at is not null then
        perform mill.refuse('PM002', format('worker %s was disabled by an admin', w.name));
    elsif wanted_kind is not null and w.kind <> wanted_kind then
        perform mill.refuse('PM002', format('worker %s is of kind %s, not %s', w.name, w.kind, wanted_kind));
    end if;
    return w;
end
$$;
comment on function mill.me is 'The calling worker; refused where the login is none, is disabled, or is of another kind.';

create function mill.is_vouched(p_worker_id integer) returns boolean
language sql stable
as $$
    select exists (select from mill.worker where worker_id = p_worker_id and streak is null)
$$;
comment on function mill.is_vouched is 'Whether an admin vouches for a worker: its word decides a check.';

create function mill.is_stranger(p_worker_id integer, p_avoid integer[], p_is_check boolean) returns boolean
language sql stable
as $$
    select not p_worker_id = any (p_avoid)
       and (p_is_check and mill.is_vouched(p_worker_id)
            or not exists (select from mill.worker w join mill.worker a on a.network = w.network
                            where w.worker_id = p_worker_id and a.worker_id = any (p_avoid)))
$$;
comment on function mill.is_stranger is
    'Whether a worker is none of these, nor of the network of one; where no network is known, another login is enough. For checks, whom an '
    'admin vouches for is a stranger in any network.';

create function mill.next_attempt(p_batch_id bigint) returns smallint
language plpgsql
as $$
begin
    perform from mill.batch where batch_id = p_batch_id for no key update;  -- one new attempt after another
    return (select max(attempt) + 1 from mill.task where kind = 'download' and batch_id = p_batch_id);
end
$$;
comment on function mill.next_attempt is 'The number of a batch''s next download attempt, kept from others until the end of the transaction.';

create or replace function mill.end_lease(p_lease_id bigint, how text) returns void
language sql
as $$
    update mill.lease set ended_at = clock_timestamp(), ended_as = how where lease_id = p_lease_id and ended_at is null;
    with over as (delete from mill.assignment where lease_id = p_lease_id returning lease_id, compared, agreed)
    insert into mill.recheck (worker_id, task_id, compared, agreed)
    select i.worker_id, l.task_id, o.compared, o.agreed
      from over o join mill.lease l using (lease_id) join mill.instance i using (instance_id)
     where o.compared > 0
$$;
comment on function mill.end_lease is 'Ends a lease, once; what its canaries told waits to be judged.';

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
    -- whoever says hello for ever has one row: the one that has claimed nothing yet is used again
    update mill.instance i set version = left(p_version, 100), protocol = p_protocol, started_at = now()
     where i.instance_id = (select u.instance_id from mill.instance u
                             where u.worker_id = w.worker_id
                               and not exists (select from mill.lease l where l.instance_id = u.instance_id)
                             limit 1 for no key update skip locked)
    returning i.instance_id into instance_id;
    if not found then
        insert into mill.instance (worker_id, version, protocol)
        values (w.worker_id, left(p_version, 100), p_protocol)
        returning instance.instance_id into instance_id;
    end if;
    name := w.name;
    kind := w.kind;
    heartbeat_seconds := greatest(1, s.lease_seconds / 4);
end
$$;
comment on function api.hello_v1 is
    'First call of a worker process. Gives it its instance number: a new one, or one of this worker''s under which nothing was claimed.';

create function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l join mill.instance i using (instance_id)
     where i.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
$$;
comment on function mill.unfinished is 'Leases of a worker that were failed, lost or given back within the hour.';

-- A claim never touches the result tables. MATERIALIZED, and not IN (subselect): under some plans
-- the subselect is run again for every row, and LIMIT 2 took 1,000 tasks.
-- p_model_id is null, and not IS NOT DISTINCT FROM: of that the planner expects one row, so it read and sorted
-- every ready task: 16 ms with 90,000 WAT files, and 0.5 in the order of the index.
create function mill.pick(p_kind text, p_model_id integer, p_worker_id integer, p_has_slot boolean default false) returns mill.task
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
comment on function mill.pick is
    'Marks a ready task of a kind leased and returns it: a check before all others, then the oldest; none that this worker must not do. '
    'p_has_slot: of those that have a slot of the ring, or need none.';

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

create or replace function mill.pending(kinds text[]) returns boolean
language sql stable
as $$
    select exists (select from mill.task where kind = any (kinds) and state in ('ready', 'leased', 'submitted')
                      and not (is_check and state = 'ready'))  -- there may be nobody to do it
$$;
comment on function mill.pending is 'Whether a task of these kinds is ready, leased or awaiting acceptance.';

-- The sum first: it reads a few rows, to_download 10,000.
create function mill.is_covered(t mill.task) returns boolean
language plpgsql stable
as $$
begin
    return (select coalesce(sum(row_count), 0) from mill.submission where task_id = t.task_id and state in ('received', 'accepted'))
           = coalesce(cardinality(t.positions), (select pair_count from mill.batch where batch_id = t.batch_id))
        or not exists (select from mill.to_download(t));
end
$$;
comment on function mill.is_covered is 'Whether received and accepted submissions cover all of a download task.';

create or replace function api.urls_v1(p_lease_id bigint) returns table (n integer, url text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
begin
    if not exists (select from mill.assignment where lease_id = p_lease_id) then
        return query select d.n, d.url from mill.to_download(t) d order by d.n;
        return;
    end if;
    perform mill.shuffle(t, p_lease_id);
    return query
    select h.place::integer - 1, coalesce(d.url, c.url)
      from mill.assignment a
      cross join unnest(a.positions) with ordinality as h (n, place)
      left join mill.to_download(t) d on d.n = h.n
      left join unnest(a.canary_places, a.canary_ids) as k (place, canary_id) on k.place = h.place - 1
      left join mill.canary c on c.canary_id = k.canary_id
     where a.lease_id = p_lease_id and coalesce(d.url, c.url) is not null
     order by h.place;
end
$$;
comment on function api.urls_v1 is
    'What is left to fetch under this lease: what an earlier holder submitted is not asked for again. n is the number under which a URL''s '
    'outcome is submitted; canaries may be among them, in no place that shows it.';

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
    return cardinality(p_origin);  -- how many were kept would tell which hosts are canaries
end
$$;
comment on function api.submit_opt_outs_v1 is
    'Keeps what files of the batch''s hosts said, for other batches; what is of no host of the batch is left out. Returns how many were given.';

create function mill.are_open(t mill.task, p_positions integer[]) returns boolean
language sql stable
as $$
    select not exists (
        select from unnest(p_positions) p (n)
         where p.n not between 0 and (select pair_count - 1 from mill.batch where batch_id = t.batch_id))
       and (t.positions is null or not exists (select unnest(p_positions) except select unnest(t.positions)))
       -- a join was planned as a loop of 1,000 by 9,000 once the statistics knew a long history: 87 ms, and 4 so
       and not exists (select unnest(p_positions) intersect select c.n from mill.covered(t) c)
$$;
comment on function mill.are_open is 'Whether positions are all of a download task and covered by no submission yet.';

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
    stranger constant text := 'a position is not of this task, is given twice, or was submitted already';
    n integer[];
begin
    if id is not null then
        return id;
    end if;
    if rows is null or rows not between 1 and (select batch_size + canaries_per_lease from mill.setting)
       or p_part is null or array_ndims(p_positions) <> 1
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
    -- all that can be refused of a row is refused before canaries are told from URLs, or refusals would tell them
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
            or not r.n = any (p_positions)
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
    if rows <> (select count(distinct p) from unnest(p_positions) p) then
        perform mill.refuse('PM003', stranger);
    end if;
    if exists (select from mill.assignment where lease_id = p_lease_id) then
        n := mill.take_canaries(p_lease_id, p_positions, p_outcome, p_sha256, p_dhash);  -- null where one was
        select coalesce(array_agg(m.n), '{}'), coalesce(array_agg(r.image), '{}')
          into p_thumbnail_positions, p_thumbnails
          from unnest(p_thumbnail_positions, p_thumbnails) as r (place, image)
          join unnest(p_positions, n) as m (place, n) using (place) where m.n is not null;
        select coalesce(array_agg(m.n), '{}'), coalesce(array_agg(r.signal), '{}'), coalesce(array_agg(r.value), '{}'),
               coalesce(array_agg(r.source), '{}'), coalesce(array_agg(r.age), '{}')
          into p_refused, p_signal, p_value, p_source, p_age
          from unnest(p_refused, p_signal, p_value, p_source, p_age) as r (place, signal, value, source, age)
          join unnest(p_positions, n) as m (place, n) using (place) where m.n is not null;
        select coalesce(array_agg(r.n), '{}'), coalesce(array_agg(r.outcome), '{}'), coalesce(array_agg(r.http_status), '{}'),
               coalesce(array_agg(r.bytes), '{}'), coalesce(array_agg(r.width), '{}'), coalesce(array_agg(r.height), '{}'),
               coalesce(array_agg(r.md5), '{}'), coalesce(array_agg(r.sha256), '{}'), coalesce(array_agg(r.dhash), '{}')
          into p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash
          from unnest(n, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash)
               as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
         where r.n is not null;
    end if;
    if not mill.are_open(t, p_positions) then
        perform mill.refuse('PM003', stranger);
    end if;
    id := mill.receive(t, p_lease_id, p_part, cardinality(p_positions));
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash,
            p_refused, p_signal, p_value, p_source,
            array(select now() - make_interval(secs => age) from unnest(p_age) with ordinality u (age, place) order by place));
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
     where not t.is_check;  -- of a check only the hashes are looked at
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
            -- a check's rows are kept to be compared, and count for nothing
            insert into mill.withdrawn (submission_id, reason) select s.submission_id, 'a check' where t.is_check;
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
comment on function mill.slot_is_done is
    'Whether nobody needs a slot''s thumbnails any more: its downloads and their score tasks are done, or parked for long, or '
    'downloads are parked and the ring is full. False while there is no model: they were fetched to be scored.';

-- Locks the slot, then its tasks. A claim and a submission lock their task first: but a claim never waits
-- for a slot, and nobody waits here for a task that is not at rest.
create function mill.give_back_places(p_slot smallint) returns void
language plpgsql
as $$
declare
    parked bigint[];
    places integer;
begin
    perform from mill.thumbnail_slot where slot = p_slot for update;
    parked := array(select task_id from mill.task where slot = p_slot and state = 'parked' order by task_id for update skip locked);
    -- a second statement, which sees what was submitted until the tasks were locked
    update mill.task t set slot = null
     where t.task_id = any (parked) and not exists (select from mill.submission s where s.task_id = t.task_id);
    get diagnostics places = row_count;
    if places > 0 then
        update mill.thumbnail_slot set batches = batches - places, state = 'filling' where slot = p_slot;
    end if;
end
$$;
comment on function mill.give_back_places is 'Parked tasks under which nothing was submitted keep no place in a slot. Locks the slot.';

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
            perform mill.give_back_places(candidate);  -- and locks it: no claim adds a batch
            continue when not mill.slot_is_done(candidate);
            perform from mill.task where slot = candidate order by task_id for update;  -- none is queued again meanwhile
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

-- 15 s: a worker's call is one statement. 10 minutes: a submission over a slow line counts from its first byte.
-- It reads the catalogs and no table of ours, mill.worker neither: behind the session that it must end a migration
-- may wait for a table, and behind the migration whoever reads it.
create function api.watchdog_v1(p_idle_seconds integer default 15, p_busy_seconds integer default 600) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    prefix constant text := left(current_database(), 40) || '_';
begin
    if not (pg_has_role(current_user, 'pg_signal_backend', 'usage') and pg_has_role(current_user, 'pg_read_all_stats', 'usage')) then
        return null;  -- secure.sql grants both
    end if;
    return (
        select count(*) filter (where pg_terminate_backend(a.pid))
          from pg_stat_activity a
         where a.backend_type = 'client backend'
           and exists (select from unnest('{extract,download,score}'::text[]) k
                        where pg_has_role(a.usesysid, (prefix || k)::name, 'member'))
           -- a superuser is a member of all, another admin of the owner
           and not pg_has_role(a.usesysid, (prefix || 'steward')::name, 'member')
           and not pg_has_role(a.usesysid, current_user, 'member')
           and (a.state like 'idle in transaction%' and a.state_change < clock_timestamp() - make_interval(secs => p_idle_seconds)
                or a.xact_start < clock_timestamp() - make_interval(secs => p_busy_seconds)));
end
$$;
comment on function api.watchdog_v1 is
    'Ends sessions of workers that are idle in a transaction, or at work in one, for too long: they keep locks, and what a vacuum would clear. '
    'Returns how many; null where `pairmill db secure` has not given it the right.';

create or replace function mill.add_worker(p_login name, p_name text, p_kind text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.worker (login, name, kind) values (p_login, p_name, p_kind);
    execute format('create role %I login password %L connection limit 8 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_' || p_kind);
    execute format('alter role %I set statement_timeout = %L', p_login, '10min');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', p_login, '5min');
    if p_kind <> 'steward' and has_parameter_privilege('temp_file_limit', 'set') then
        execute format('alter role %I set temp_file_limit = %L', p_login, '1GB');
    end if;
end
$$;
comment on function mill.add_worker is 'Makes a worker and its login. The password is a SCRAM verifier, so that no log holds it.';

create function mill.withdraw_downloads(p_submissions bigint[], why text) returns integer
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
comment on function mill.withdraw_downloads is
    'Withdraws accepted download submissions and queues their URLs again, one task a batch and not one a submission. Returns the tasks queued.';

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
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts. '
    'busy: batches left out, since a download of theirs is not done.';

-- Not by whoever found it dead, nor from their network.
create function mill.retry_doubted(p_first_batch bigint, p_last_batch bigint, out batches bigint, out urls bigint, out busy bigint)
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
comment on function mill.retry_doubted is
    'Queues the dead links that only one network has seen, for workers of another. busy: batches left out, since a download of theirs is not done.';

create function mill.set_network(p_name text, p_network text) returns boolean
language sql
as $$
    update mill.worker set network = nullif(p_network, '') where name = p_name returning true
$$;
comment on function mill.set_network is 'Notes where a worker connects from; empty: not known. Null where there is no such worker.';

create or replace function mill.prove_worker(p_name text, p_proven boolean) returns boolean
language sql
as $$
    update mill.worker
       set proven_at = case when p_proven then coalesce(proven_at, now()) end,
           streak = case when not p_proven then 0 end
     where name = p_name returning true
$$;
comment on function mill.prove_worker is
    'An admin vouches for a worker, or no longer: it is not checked, and others rely on what it says a host allows. Null where there is no such worker.';

create or replace view report.worker as
select w.name, w.kind, w.added_at, w.disabled_at,
       (select max(i.started_at) from mill.instance i where i.worker_id = w.worker_id) as started_at,
       (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) as live_leases,
       coalesce(sum(s.row_count) filter (where s.state = 'accepted' and x.submission_id is null), 0)::bigint as rows_accepted,
       w.network, w.proven_at, w.streak, w.agreement, w.stopped_because
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
comment on column report.worker.network is 'Where it connects from, in the admin''s words';
comment on column report.worker.proven_at is 'Since when others rely on what it says a host allows; null while they do not';
comment on column report.worker.streak is 'Checks in a row that agreed; null: an admin vouches, it is not checked';
comment on column report.worker.agreement is 'Share of its checked downloads that others found alike, a moving average';
comment on column report.worker.stopped_because is 'Why the trust check disabled it; null where it did not';

create view report.recheck as
select r.recheck_id, w.name as worker, t.batch_id, t.attempt,
       case when r.repeat_task_id is null then 'canaries' else 'repeat' end as kind,
       r.state, r.compared, r.agreed, r.opened_at, r.decided_at
  from mill.recheck r
  join mill.worker w using (worker_id)
  join mill.task t using (task_id);
comment on view report.recheck is 'Checks of what workers downloaded.';
comment on column report.recheck.recheck_id is 'Key';
comment on column report.recheck.worker is 'Who is checked';
comment on column report.recheck.batch_id is 'The batch whose download is checked';
comment on column report.recheck.attempt is 'Which attempt at it';
comment on column report.recheck.kind is 'repeat: another worker''s, of a sample; canaries: URLs with known answers';
comment on column report.recheck.state is 'open, disputed (a third worker decides), agreed, failed or void (nothing could be told)';
comment on column report.recheck.compared is 'URLs that could be compared';
comment on column report.recheck.agreed is 'Of those, URLs that ended alike';
comment on column report.recheck.opened_at is 'When it was drawn';
comment on column report.recheck.decided_at is 'When it was decided';

create view report.dead_link as
select mill.sample_id(d.batch_id, d.n) as sample_id, d.batch_id, d.n, p.url, o.name as outcome, f.networks, f.networks >= 2 as believed
  from mill.current_download d
  join mill.outcome o on o.code = d.outcome and o.name not in ('success', 'opted_out', 'opt_out_unknown')
  join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
 cross join lateral (
       select count(distinct w.network) as networks
         from mill.download x
         join mill.submission s using (submission_id)
         join mill.task t using (task_id)
         join mill.worker w on w.worker_id = s.worker_id
        where x.batch_id = d.batch_id and x.n = d.n and x.outcome not in (0, 50, 51)
          -- a check counts for nothing else, but for this
          and (t.is_check or not exists (select from mill.withdrawn z where z.submission_id = x.submission_id))) f;
comment on view report.dead_link is
    'Pairs that gave no image, and how many networks have seen that. Name a range of batch_id: there may be billions.';
comment on column report.dead_link.sample_id is 'As report.pair.sample_id';
comment on column report.dead_link.batch_id is 'As report.pair.batch_id';
comment on column report.dead_link.n is 'As report.pair.n';
comment on column report.dead_link.url is 'The URL';
comment on column report.dead_link.outcome is 'How its download ended';
comment on column report.dead_link.networks is 'Networks of workers, as admins named them, that found no image';
comment on column report.dead_link.believed is 'Whether two networks found none: one network''s trouble is shared by all in it';

create function mill.hide_canaries(t mill.task, p_lease_id bigint) returns void
language sql
as $$
    -- by the task, and not by chance: who claims, releases and claims again would see them change
    insert into mill.assignment (lease_id, canary_places, canary_ids)
    select p_lease_id, '{}', array_agg(c.canary_id)
      from (select canary_id from mill.canary
             order by hashint8extended(canary_id, t.task_id)
             limit (select least(canaries_per_lease,
                                 coalesce(cardinality(t.positions), (select pair_count from mill.batch where batch_id = t.batch_id)) / 20)
                      from mill.setting)) c
    having count(*) > 0
$$;
comment on function mill.hide_canaries is 'Chooses the canaries of a download lease, if there are any.';

create function mill.shuffle(t mill.task, p_lease_id bigint) returns void
language sql
as $$
    update mill.assignment a
       set positions = x.positions, canary_places = x.places, canary_ids = x.ids
      from (select array_agg(m.n order by m.place) as positions,
                   array_agg(m.place::integer) filter (where m.canary_id is not null) as places,
                   array_agg(m.canary_id) filter (where m.canary_id is not null) as ids
              from (select h.n, h.canary_id, row_number() over (order by random()) - 1 as place
                      from (select d.n, null::integer as canary_id from mill.to_download(t) d
                            union all
                            select null, unnest(b.canary_ids) from mill.assignment b where b.lease_id = p_lease_id) h) m) x
     where a.lease_id = p_lease_id and a.positions is null
$$;
comment on function mill.shuffle is 'Puts what is left of a task, and the canaries of its lease, in an order by chance; once a lease.';

create function mill.take_canaries(
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
comment on function mill.take_canaries is
    'From the numbers that a worker was given to those of the batch, null where it answered a canary, whose answer is noted. Refuses other numbers.';

-- 10 of 64 bits: what re-encoding and scaling change; unrelated images differ in 32 on average
create function mill.look_alike(a bigint, b bigint) returns boolean
language sql immutable parallel safe
return bit_count((a # b)::bit(64)) <= 10;
comment on function mill.look_alike is 'Whether two difference hashes are of the same picture.';

create function mill.is_right(c mill.canary, p_outcome smallint, p_sha256 bytea, p_dhash bigint) returns boolean
language sql immutable
as $$
    select case when p_outcome in (50, 51) then null  -- a site may have changed its mind
                when c.sha256 is null then p_outcome <> 0
                else coalesce(p_outcome = 0 and (p_sha256 = c.sha256 or mill.look_alike(p_dhash, c.dhash)), false) end
$$;
comment on function mill.is_right is 'Whether an answer to a canary is right; null where that cannot be told.';

create function mill.canaries_left(p_lease_id bigint) returns bigint
language sql stable
as $$
    select count(*) from mill.assignment a, unnest(a.canary_ids) k (canary_id) join mill.canary using (canary_id)
     where a.lease_id = p_lease_id
$$;
comment on function mill.canaries_left is 'Canaries of a lease that were not answered.';

create function mill.draw_checks(t mill.task) returns void
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
comment on function mill.draw_checks is
    'Once a download task is done: draws whether its workers are checked, and of one that an admin vouches for, some canaries.';

create function mill.queue_check(t mill.task, p_positions integer[], p_avoid integer[]) returns bigint
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, positions, is_check, avoid_workers)
    values ('download', t.batch_id, mill.next_attempt(t.batch_id), p_positions, true, p_avoid)
    returning task_id
$$;
comment on function mill.queue_check is 'Queues a repeat of these positions, for somebody else.';

-- A checker's own trouble is not held against the checked one: his success against another's failure counts only
-- where that failure is final. That both found nothing tells nothing: two who do no work say so of everything (it
-- left 0.6 % of lies in the simulation). Whether a link is dead is report.dead_link's business.
create function mill.compare(p_task_id bigint, p_repeat_id bigint, p_worker_id integer, out compared integer, out agreed integer)
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

create function api.judge_checks_v1() returns integer
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

create function api.sweep_canaries_v1() returns bigint
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
comment on function api.sweep_canaries_v1 is 'Deletes the canaries that were drawn and are of no more use, or are to be removed.';

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

create function mill.repeated_by(p_task_id bigint) returns integer
language sql stable
as $$
    select worker_id from mill.submission where task_id = p_task_id and state = 'accepted' order by row_count desc limit 1
$$;
comment on function mill.repeated_by is 'Who did a check, or most of it.';

create function mill.dispute(r mill.recheck, t mill.task) returns void
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
comment on function mill.dispute is 'Has a repeat that did not agree repeated once more, by somebody else.';

create function mill.blame_repeat(r mill.recheck) returns void
language plpgsql
as $$
declare
    checker constant integer := mill.repeated_by(r.repeat_task_id);
    found record;
begin
    found := mill.compare(r.repeat_task_id, r.second_task_id, null);
    insert into mill.recheck (worker_id, task_id, repeat_task_id, state, compared, agreed, decided_at)
    values (checker, r.repeat_task_id, r.second_task_id, 'failed', found.compared, found.agreed, now());
    perform mill.count_check(checker, r.repeat_task_id, found.compared, found.agreed, false);
end
$$;
comment on function mill.blame_repeat is 'Counts a repeat that turned out to be the wrong one as a failed check of who did it.';

create function mill.count_check(p_worker_id integer, p_task_id bigint, p_compared integer, p_agreed integer, p_by_canaries boolean)
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

create function mill.check_again(p_stopped_id integer) returns void
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

create function mill.take_back(p_worker_id integer, p_task_id bigint, why text) returns void
language plpgsql
as $$
declare
    s mill.submission;
begin
    perform from mill.task where task_id = p_task_id for update;
    for s in select * from mill.submission where task_id = p_task_id and worker_id = p_worker_id and state = 'received' for update loop
        perform mill.reject(s, why);
    end loop;
    perform mill.withdraw_downloads(array(
        select submission_id from mill.submission where task_id = p_task_id and worker_id = p_worker_id and state = 'accepted'), why);
end
$$;
comment on function mill.take_back is 'Rejects and withdraws what one worker gave for one download task; its URLs are queued again.';

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
begin
    execute format('grant execute on function api.judge_checks_v1 to %I', prefix || 'steward');
    execute format('grant execute on function api.watchdog_v1 to %I', prefix || 'steward');
    execute format('grant execute on function api.sweep_canaries_v1 to %I', prefix || 'steward');
    execute format('grant select on report.recheck, report.dead_link to %I', prefix || 'researcher');
end
$$;

-- Taggers: heads on embeddings and models of pixels, whose tags come in the pass of their clip model or as tasks of their own.
-- What a login has left unfinished is counted of its own leases alone; inboxes take what is under a live lease of the sender's and no
-- more; outages count no try.

CREATE TABLE mill.tag (
	batch_id BIGINT NOT NULL,
	model_id INTEGER NOT NULL,
	attempt SMALLINT NOT NULL,
	n INTEGER NOT NULL,
	label SMALLINT,
	value REAL,
	submission_id BIGINT NOT NULL,
	CONSTRAINT tag_pkey PRIMARY KEY (batch_id, model_id, attempt, n, submission_id)
) PARTITION BY RANGE (batch_id);
COMMENT ON TABLE mill.tag IS 'What a tagger says of a downloaded image: aesthetic, punsafe, pwatermark and so on.';
COMMENT ON COLUMN mill.tag.batch_id IS 'The batch';
COMMENT ON COLUMN mill.tag.model_id IS 'The tagger';
COMMENT ON COLUMN mill.tag.attempt IS 'As score.attempt';
COMMENT ON COLUMN mill.tag.n IS 'Position within the batch, from 0';
COMMENT ON COLUMN mill.tag.label IS 'zero-shot: which of model.labels, from 0';
COMMENT ON COLUMN mill.tag.value IS 'What it gives; null: NaN or an infinity';
COMMENT ON COLUMN mill.tag.submission_id IS 'The submission that it came with';

CREATE TABLE inbox.tag (
	lease_id BIGINT NOT NULL,
	worker name DEFAULT session_user NOT NULL,
	part INTEGER NOT NULL,
	model_id INTEGER NOT NULL,
	n INTEGER NOT NULL,
	label SMALLINT,
	value REAL
);
CREATE INDEX tag_lease_id_part_idx ON inbox.tag (lease_id, part);
COMMENT ON TABLE inbox.tag IS 'Tags, from the COPY of a score worker until acceptance.';
COMMENT ON COLUMN inbox.tag.lease_id IS 'The lease under which it was sent';
COMMENT ON COLUMN inbox.tag.worker IS 'The sender; filled in by the server, workers have no right to write it';
COMMENT ON COLUMN inbox.tag.part IS 'The part of the submission';
COMMENT ON COLUMN inbox.tag.model_id IS 'As tag.model_id';
COMMENT ON COLUMN inbox.tag.n IS 'As tag.n';
COMMENT ON COLUMN inbox.tag.label IS 'As tag.label';
COMMENT ON COLUMN inbox.tag.value IS 'As tag.value';

do $$
declare
    child text;
    low bigint;
begin
    for low in select right(inhrelid::regclass::text, 6)::bigint * 1000 from pg_inherits where inhparent = 'mill.pair'::regclass order by 1 loop
        child := format('tag_b%s', lpad((low / 1000)::text, 6, '0'));
        execute format('create table mill.%I (like mill.tag including all) with (autovacuum_freeze_min_age = 0)', child);
        execute format('alter table mill.tag attach partition mill.%I for values from (%s) to (%s)', child, low, low + 1000);
        execute format('comment on table mill.%I is %L', child, format('Batches %s to %s of mill.tag', low, low + 999));
    end loop;
end
$$;

alter table mill.model add column kind TEXT DEFAULT 'clip' NOT NULL CONSTRAINT model_kind_check CHECK (kind in ('clip', 'head', 'zero-shot', 'pixels'));
COMMENT ON COLUMN mill.model.kind IS 'clip: image and text to embeddings; head: an image embedding to a number; zero-shot: an image embedding to one of labels; pixels: a thumbnail to a number';
alter table mill.model add column base_model_id INTEGER CONSTRAINT model_base_model_id_fkey REFERENCES mill.model (model_id);
COMMENT ON COLUMN mill.model.base_model_id IS 'A tagger''s clip model: its embeddings are read, and in its pass the tagger is computed';
alter table mill.model add column labels TEXT[];
COMMENT ON COLUMN mill.model.labels IS 'zero-shot: names of the categories, in order';
alter table mill.model add column revision TEXT DEFAULT '' NOT NULL;
COMMENT ON COLUMN mill.model.revision IS 'Which version of the weights, in their maker''s words';
alter table mill.model add column licence TEXT DEFAULT '' NOT NULL;
COMMENT ON COLUMN mill.model.licence IS 'Of the weights; empty where nobody said';
alter table mill.model add column metrics JSONB DEFAULT '{}' NOT NULL;
COMMENT ON COLUMN mill.model.metrics IS 'What was measured of it on held-out data';
alter table mill.model add column weights BYTEA;
COMMENT ON COLUMN mill.model.weights IS 'head, zero-shot: the safetensors file, so that whoever scores has it; null: the worker brings them';
alter table mill.model add column retired_at TIMESTAMP WITH TIME ZONE;
COMMENT ON COLUMN mill.model.retired_at IS 'When it was retired: nothing is scored by it any more, what was stays; null while it is active';
alter table mill.model add CONSTRAINT model_base_check CHECK ((kind = 'clip') = (base_model_id is null));
alter table mill.model add CONSTRAINT model_weights_check CHECK ((kind in ('head', 'zero-shot')) = (weights is not null));
alter table mill.model add CONSTRAINT model_labels_check CHECK ((kind = 'zero-shot') = (labels is not null));
CREATE UNIQUE INDEX model_tagger_name_key ON mill.model (name) WHERE kind <> 'clip';
COMMENT ON TABLE mill.model IS 'A model that scores pairs, or a tagger that says more of them in the same pass.';
COMMENT ON COLUMN mill.model.name IS 'open_clip''s model name, the folder of a model, or a tagger''s name';
COMMENT ON COLUMN mill.model.dims IS 'Length of an embedding; of a tagger of pixels 0';
alter table mill.lease add column worker_id INTEGER;
COMMENT ON COLUMN mill.lease.worker_id IS 'The worker of instance_id; null for leases from before it was noted';
drop index mill.lease_unfinished_idx;
CREATE INDEX lease_unfinished_idx ON mill.lease (worker_id, ended_at) WHERE ended_as <> 'completed';
alter table mill.submission add column tag_count INTEGER DEFAULT '0' NOT NULL;
COMMENT ON COLUMN mill.submission.tag_count IS 'score: tags in it';
alter table mill.score add column text_tokens SMALLINT;
COMMENT ON COLUMN mill.score.text_tokens IS 'Tokens of the text, start and end among them, before the model cut them to its length; null: not told';
do $$
declare
    child regclass;
begin
    for child in select inhrelid from pg_inherits where inhparent = 'mill.score'::regclass loop
        execute format('comment on column %s.text_tokens is %L', child,
                       'Tokens of the text, start and end among them, before the model cut them to its length; null: not told');
    end loop;
end
$$;
alter table inbox.score add column text_tokens SMALLINT;
COMMENT ON COLUMN inbox.score.text_tokens IS 'As score.text_tokens';
insert into mill.score_outcome (code, name) values (3, 'wrong_thumbnail');

alter table mill.task add column excused SMALLINT DEFAULT '0' NOT NULL;
COMMENT ON COLUMN mill.task.excused IS 'Leases that were lost in an outage and counted no try';
alter table mill.lease add column copied_bytes BIGINT DEFAULT '0' NOT NULL;
COMMENT ON COLUMN mill.lease.copied_bytes IS 'What was copied into an inbox under it; whether it was submitted or not';
alter table mill.setting add column inbox_mb_per_lease INTEGER DEFAULT '1000' NOT NULL;
COMMENT ON COLUMN mill.setting.inbox_mb_per_lease IS 'What may be copied into an inbox under one lease, in units of 1,000,000 bytes';
-- what an inbox does not take any more; its submission is rejected, and done again
delete from inbox.pair
 where not (url_key = md5(url)::uuid and char_length(url) <= 2048 and (starts_with(url, 'http://') or starts_with(url, 'https://'))
            and char_length(text) <= 2000 and ordinal >= 0 and language_probability between 0 and 1.01 and char_length(link_kind) <= 20
            and coalesce(char_length(language), 0) <= 35 and coalesce(char_length(license), 0) <= 2048);
delete from inbox.score where octet_length(image) > 65536 or octet_length(text) > 65536;
alter table inbox.pair add CONSTRAINT pair_url_key_check CHECK (url_key = md5(url)::uuid);
alter table inbox.pair add CONSTRAINT pair_url_check CHECK (char_length(url) <= 2048 and (starts_with(url, 'http://') or starts_with(url, 'https://')));
alter table inbox.pair add CONSTRAINT pair_text_check CHECK (char_length(text) <= 2000);
alter table inbox.pair add CONSTRAINT pair_rest_check CHECK (ordinal >= 0 and char_length(language) <= 35 and language_probability between 0 and 1.01 and char_length(license) <= 2048 and char_length(link_kind) <= 20);
alter table inbox.score add CONSTRAINT score_size_check CHECK (octet_length(image) <= 65536 and octet_length(text) <= 65536);

CREATE INDEX recheck_void_idx ON mill.recheck (decided_at) WHERE state = 'void';

alter table mill.lease set (fillfactor = 90);
do $$
declare
    child text;
begin
    for child in select inhrelid::regclass::text from pg_inherits
                  where inhparent in ('mill.pair'::regclass, 'mill.download'::regclass, 'mill.score'::regclass,
                                      'mill.embedding'::regclass, 'mill.opt_out'::regclass) loop
        execute format('alter table %s set (autovacuum_freeze_min_age = 0)', child);
    end loop;
    for child in select inhrelid::regclass::text from pg_inherits where inhparent = 'mill.thumbnail'::regclass loop
        execute format('alter table %s set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)', child);
    end loop;
end
$$;

alter table mill.embedding alter column image set storage external, alter column text set storage external;

drop function mill.to_score(mill.task);
drop function mill.add_model(text, text, text, integer);
drop function mill.judge(mill.recheck);

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
        foreach parent in array array['pair', 'download', 'score', 'embedding', 'opt_out', 'tag'] loop
            child := format('%s_b%s', parent, lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null;
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            -- its rows never change: frozen at the first vacuum, or the last one writes all of its pages once more
            execute format('create table mill.%I (like mill.%I including all) with (autovacuum_freeze_min_age = 0)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child,
                           format('Batches %s to %s of mill.%s', low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;

comment on function mill.ensure_partitions is
    'Makes the partitions of pair, download, score, embedding, opt_out and tag that hold batches up to this one.';

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
        -- it is truncated before long: to mark its pages as all-visible took as much WAL as to write them
        execute format('alter table mill.%I set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)', child);
        execute format('comment on table mill.%I is %L', child, format('Slot %s of the thumbnail ring', i));
        insert into mill.thumbnail_slot (slot) values (i);
    end loop;
end
$$;

create or replace function mill.repeated_by(p_task_id bigint) returns integer
language sql stable
as $$
    select worker_id from mill.submission where task_id = p_task_id and state = 'accepted'
     group by worker_id order by sum(row_count) desc, worker_id limit 1
$$;

-- One at a time, and none for an hour after one that came to nothing: else one login could sit on all of them.
create function mill.may_check(p_worker_id integer) returns boolean
language sql stable
as $$
    select mill.is_vouched(p_worker_id)
        or not exists (select from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
                        where i.worker_id = p_worker_id and l.ended_at is null and t.is_check)
       and not exists (select from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
                        where i.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour' and t.is_check)
       and not exists (select from mill.recheck r
                        where r.state = 'void' and r.decided_at > now() - interval '1 hour'
                          and mill.repeated_by(coalesce(r.second_task_id, r.repeat_task_id)) = p_worker_id)
$$;

comment on function mill.may_check is
    'Whether a worker is given a check: it holds no other, and in the last hour it gave none back, failed or lost none, and none that it did '
    'was void. An admin''s own worker always is.';

create or replace function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l
     where l.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
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
           and (not is_check or (select mill.may_check(p_worker_id)))
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
    -- (not the worker's row: who does not commit would hold its own judgement up, and with it the steward)
    perform from mill.instance where instance_id = (select min(instance_id) from mill.instance where worker_id = w.worker_id) for no key update;
    if (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) >= s.leases_per_worker then
        perform mill.refuse('PM003', format('this login holds %s live leases, the most that it may', s.leases_per_worker));
    end if;
    if mill.unfinished(w.worker_id) >= s.unfinished_per_hour then
        perform mill.refuse('PM003', format('%s leases of this login were failed, lost or given back within an hour, the most that may be: '
                                            'find out why, and start again later', s.unfinished_per_hour));
    end if;
    if w.kind = 'score' then
        select model_id into m from mill.model where digest = p_model_digest and retired_at is null;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights, or it was retired; an admin adds it with: pairmill model add');
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
    insert into mill.lease (lease_id, task_id, instance_id, worker_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id, w.worker_id,
            clock_timestamp() + make_interval(secs => s.lease_seconds),
            clock_timestamp() + make_interval(secs => least(s.lease_max_seconds, case when t.is_check then 1800 end)));
    if w.kind = 'download' and not t.is_check and w.streak is not null then
        perform mill.hide_canaries(t, lease_id);
    end if;
    payload := case w.kind
        when 'extract' then (select jsonb_build_object('wat_id', wat_id, 'location', location,
                                                           'link_kinds', link_kinds, 'last_try', t.tries + 1 >= s.max_tries) from mill.wat_file where wat_id = t.wat_id)
        when 'download' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt)
        when 'score' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt,
                                             'count', (select count(*) from mill.left_to_score(t)))
    end;
    return next;
end
$$;

comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location, link_kinds, last_try}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v2, or of a head embeddings_v1, must give.';

create or replace function api.fail_v1(p_lease_id bigint, p_reason text, p_retry boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, null);
begin
    perform mill.end_lease(p_lease_id, 'failed');
    perform mill.put_back(t.task_id, p_reason, p_retry or t.is_check);  -- nobody ends a check by one call
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
            select from mill.task t join mill.model m using (model_id)
             where t.kind = 'score' and t.state in ('ready', 'leased', 'submitted')
               -- upstream of a tagger's tasks are those of its clip model
               and m.model_id in (select x from mill.model g, unnest(array[g.model_id, g.base_model_id]) x where g.digest = p_model_digest))
        when 'steward' then not mill.pending('{extract,download,score}') and not open_batches and not exists (
            select from mill.thumbnail_slot where state <> 'empty' and mill.slot_is_done(slot))
    end;
end
$$;

-- What may be copied into an inbox: workers insert there themselves, so the tables have to look after themselves.

-- After the statement, and not a row: of 20,000 rows that takes 10 ms instead of 60. The rows lie in memory or in a
-- temporary file until then, so that temp_file_limit ends a statement that does not end by itself.
create function mill.take_in() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker;
    least_id bigint;
    most_id bigint;
    size bigint;
begin
    select min(lease_id), max(lease_id), sum(pg_column_size(c)) into least_id, most_id, size from copied c;
    if least_id is null or not exists (select from mill.worker where login = session_user) then  -- an admin
        return null;
    end if;
    w := mill.me();
    if least_id <> most_id then
        perform mill.refuse('PM003', 'rows of several leases were copied at once');
    end if;
    update mill.lease l
       set copied_bytes = l.copied_bytes + size
      from mill.instance i
     where l.lease_id = least_id
       and i.instance_id = l.instance_id
       and i.worker_id = w.worker_id
       and l.ended_at is null
       and l.expires_at > clock_timestamp()
    returning l.copied_bytes into size;
    if not found then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', least_id));
    end if;
    if size > 1000000 * (select inbox_mb_per_lease::bigint from mill.setting) then
        perform mill.refuse('PM003', format('more than %s MB were copied under lease %s, the most that may be',
                                            (select inbox_mb_per_lease from mill.setting), least_id));
    end if;
    return null;
end
$$;

comment on function mill.take_in is
    'Lets a worker copy into an inbox under its own live leases only, and so much under each. Of rows that an admin inserts it says nothing.';

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
        missing := (select count(*) from mill.left_to_score(t));
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
    if cardinality(p_stage) > 1000 or exists (
        select from unnest(p_link_kind, p_stage, p_name, p_count) as x (k, s, n, c)
         where k is null or s is null or n is null or c is null or length(n) > 200
            or c not between 0 and 1000000000  -- a sum of all that is near the end of bigint would stop the merges of everybody
            or s not in ('records', 'links', 'bad_record', 'ended_early', 'dropped', 'duplicate')
            or (s in ('links', 'dropped', 'duplicate')) <> (k <> '')
            or k <> '' and k <> all ((select f.link_kinds from mill.wat_file f where f.wat_id = t.wat_id)::text[])
            or s = 'dropped' and not exists (select from mill.drop_reason d where d.name = x.n)
    ) then
        perform mill.refuse('PM003', 'a count is malformed: an unknown stage, link kind or drop reason, or a number below 0 or above 10^9; or there are more than 1,000');
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
-- buckets by hash. Read only from the sender's own rows.
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

-- The score worker's part: thumbnails and texts out, similarities, embeddings and tags in.

create function mill.to_score(t mill.task) returns table (n integer)
language sql stable
as $$
    select d.n
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
    'Positions of a clip model''s score task that no received or accepted submission covers yet.';

create function mill.left_to_score(t mill.task) returns setof integer
language plpgsql stable
as $$
begin
    if (select kind from mill.model where model_id = t.model_id) = 'clip' then
        return query select s.n from mill.to_score(t) s;
    else
        return query select s.n from mill.to_tag(t) s;
    end if;
end
$$;

comment on function mill.left_to_score is 'Positions of a score task, of a model''s or a tagger''s, that no received or accepted submission covers yet.';

create function api.thumbnails_v2(p_lease_id bigint, p_from integer, p_to integer)
returns table (n integer, text text, image bytea, dhash bigint)
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
        'select d.n, p.text, h.image, d.dhash'
        '  from mill.left_to_score($1) s'
        '  join mill.pair p on p.batch_id = $2 and p.n = s'
        '  join mill.download d on d.batch_id = $2 and d.n = s and d.attempt = $3'
        '  join mill.thumbnail h on h.slot = %s and h.batch_id = $2 and h.attempt = $3'
        '   and h.n = s and h.submission_id = d.submission_id'
        ' where s >= $4 and s < $5'
        ' order by d.n', in_slot)
        using t, t.batch_id, t.attempt, p_from, p_to;
end
$$;

comment on function api.thumbnails_v2 is
    'Text, thumbnail and the dHash of its image, of positions from p_from up to, not including, p_to. Meant for COPY (SELECT …) TO '
    'STDOUT. A scorer that gets fewer rows in all than its claim counted must fail the task: TRUNCATE is not MVCC-safe, an old '
    'snapshot reads none.';

create or replace function api.thumbnails_v1(p_lease_id bigint, p_from integer, p_to integer)
returns table (n integer, text text, image bytea)
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.n, t.text, t.image from api.thumbnails_v2(p_lease_id, p_from, p_to) t
$$;

comment on function api.thumbnails_v1 is 'thumbnails_v2 without the dHash.';

-- Of a clip model's task: scores, and with them tags of any of its taggers. Of a tagger's own task: tags alone.
create function api.submit_score_v2(p_lease_id bigint, p_part integer, p_scores integer, p_tags integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    m mill.model;
begin
    if id is not null then
        return id;
    end if;
    select * into m from mill.model where model_id = t.model_id;
    if p_part is null or p_scores is null or p_tags is null or (m.kind = 'clip') <> (p_scores > 0) or p_scores + p_tags < 1 then
        perform mill.refuse('PM003', 'a submission needs a part number, and of a clip model one score or more, of a tagger tags and no score');
    end if;
    if p_scores <> (select count(*) from inbox.score where lease_id = p_lease_id and part = p_part and worker = session_user)
       or p_tags <> (select count(*) from inbox.tag where lease_id = p_lease_id and part = p_part and worker = session_user) then
        perform mill.refuse('PM003', format('%s scores and %s tags were announced, and another number was copied under lease %s, part %s',
                                            p_scores, p_tags, p_lease_id, p_part));
    end if;
    perform mill.check_scores(t, m, p_lease_id, p_part, p_scores);
    perform mill.check_tags(t, m, p_lease_id, p_part, p_tags);
    id := mill.receive(t, p_lease_id, p_part, case when m.kind = 'clip' then p_scores else p_tags end);
    update mill.submission set tag_count = p_tags where submission_id = id and p_tags > 0;
    return id;
end
$$;

comment on function api.submit_score_v2 is
    'Hands over what was copied into inbox.score and inbox.tag under this lease and part. Idempotent by (lease, part).';

create or replace function api.submit_score_v1(p_lease_id bigint, p_part integer, p_rows integer) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select api.submit_score_v2(p_lease_id, p_part, p_rows, 0)
$$;

comment on function api.submit_score_v1 is 'submit_score_v2 without tags.';

create function mill.check_scores(t mill.task, m mill.model, p_lease_id bigint, p_part integer, p_scores integer) returns void
language plpgsql
as $$
begin
    if p_scores = 0 then
        return;
    end if;
    -- an array, and not a join: it was planned as loops, 57 to 375 ms for 500 rows, and 5 so
    if p_scores <> (select count(distinct i.n) from inbox.score i
                     where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
                       and i.n = any (array(select s.n from mill.to_score(t) s))) then
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
                or octet_length(i.image) <> 2 * m.dims or octet_length(i.text) <> 2 * m.dims
                or i.text_tokens < 0)
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a similarity outside -1 to 1, or an embedding of other dims');
    end if;
end
$$;

comment on function mill.check_scores is 'Refuses what a score worker must not submit as scores.';

create or replace function mill.accept_score(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    m mill.model;
    sender name := (select login from mill.worker where worker_id = s.worker_id);
    accepted bigint;
begin
    select * into m from mill.model where model_id = t.model_id;
    if m.kind = 'clip' then
        -- one snapshot for all of it: a sender may go on copying under a number that it has submitted
        with sent as materialized (
            select i.* from inbox.score i where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
        ), scored as (
            insert into mill.score (batch_id, n, attempt, model_id, outcome, similarity, submission_id, text_tokens)
            select t.batch_id, n, t.attempt, t.model_id, outcome, similarity, s.submission_id, text_tokens from sent
        ), embedded as (
            insert into mill.embedding (batch_id, n, attempt, model_id, image, text, submission_id)
            select t.batch_id, n, t.attempt, t.model_id, image, text, s.submission_id from sent where outcome = 0
        )
        select count(*) into accepted from sent;
        if accepted <> s.row_count then
            perform mill.refuse('23000', format('%s rows were submitted and %s are there', s.row_count, accepted));
        end if;
    end if;
    perform mill.accept_tags(s, t, m, sender);
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
    delete from inbox.tag where lease_id = s.lease_id and part = s.part;
end
$$;

comment on function mill.accept_score is 'Moves a score submission from its inboxes into score, embedding and tag.';

-- Taggers: models that say more of an image, from its embedding or its thumbnail, in the pass of their clip model or later.

create function mill.to_tag(t mill.task) returns table (n integer)
language sql stable
as $$
    with found as (
        select e.n
          from mill.model m
          join mill.embedding e on e.batch_id = t.batch_id and e.attempt = t.attempt and e.model_id = m.base_model_id
         where m.model_id = t.model_id and m.kind in ('head', 'zero-shot')
           and not exists (select from mill.withdrawn w where w.submission_id = e.submission_id)
        union all
        select d.n
          from mill.model m
          join mill.download d on d.batch_id = t.batch_id and d.attempt = t.attempt and d.outcome = 0
         where m.model_id = t.model_id and m.kind = 'pixels'
           and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
    )
    select f.n
      from found f
     where f.n not in (
           select g.n from mill.tag g
            where g.batch_id = t.batch_id and g.attempt = t.attempt and g.model_id = t.model_id
              and not exists (select from mill.withdrawn w where w.submission_id = g.submission_id)
           union all
           select i.n
             from mill.submission s
             join inbox.tag i on i.lease_id = s.lease_id and i.part = s.part
            where s.task_id = t.task_id and s.state = 'received')
$$;

comment on function mill.to_tag is
    'Positions of a tagger''s task that have what it reads, an embedding or a thumbnail, and that no received or accepted submission covers yet.';

create function api.taggers_v1(p_model_digest text) returns table (model_id integer, name text, kind text, digest text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('score');
begin
    return query
    select g.model_id, g.name, g.kind, g.digest
      from mill.model m join mill.model g on g.base_model_id = m.model_id
     where m.digest = p_model_digest and g.retired_at is null
     order by g.model_id;
end
$$;

comment on function api.taggers_v1 is
    'The taggers of a clip model: a scorer computes them in the same pass where it has their weights, and claims their tasks by their digest.';

create function api.weights_v1(p_digest text) returns table (kind text, labels text[], weights bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('score');
begin
    return query select g.kind, g.labels, g.weights from mill.model g where g.digest = p_digest and g.weights is not null;
end
$$;

comment on function api.weights_v1 is 'The safetensors file of a head or a zero-shot tagger; its sha256 is the digest.';

create function api.embeddings_v1(p_lease_id bigint, p_from integer, p_to integer) returns table (n integer, image bytea)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'score');
    base constant integer := (select base_model_id from mill.model where model_id = t.model_id);
begin
    return query
    select e.n, e.image
      from mill.embedding e
     where e.batch_id = t.batch_id and e.attempt = t.attempt and e.model_id = base
       and e.n = any (array(select s.n from mill.to_tag(t) s where s.n >= p_from and s.n < p_to))
       and not exists (select from mill.withdrawn w where w.submission_id = e.submission_id)
     order by e.n;
end
$$;

comment on function api.embeddings_v1 is
    'Image embeddings (float16, little-endian) that a tagger''s task has yet to read, of positions from p_from up to, not including, p_to. '
    'Meant for COPY (SELECT …) TO STDOUT.';

create function mill.check_tags(t mill.task, m mill.model, p_lease_id bigint, p_part integer, p_tags integer) returns void
language plpgsql
as $$
declare
    in_pass constant boolean := m.kind = 'clip';
    scored integer[];
    seen integer[];  -- by a tagger of pixels: what was not scored, too
begin
    if p_tags = 0 then
        return;
    end if;
    if p_tags <> (select count(distinct (i.model_id, i.n)) from inbox.tag i
                   where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user)
       or exists (
        select
          from inbox.tag i
          left join mill.model g on g.model_id = i.model_id
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           and (g.model_id is null
                or case when in_pass then g.base_model_id is distinct from m.model_id else g.model_id <> m.model_id end)) then
        perform mill.refuse('PM003', 'a tag is of no tagger that this task asks for, or is given twice');
    end if;
    -- arrays, and not a join: it was planned as loops, 100 ms for five taggers' tags of 500 rows
    select coalesce(array_agg(s.n) filter (where s.outcome = 0), '{}'), coalesce(array_agg(s.n), '{}') into scored, seen
      from inbox.score s where s.lease_id = p_lease_id and s.part = p_part and s.worker = session_user;
    if in_pass and exists (
        select
          from inbox.tag i
          join mill.model g on g.model_id = i.model_id
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           and i.n <> all (case g.kind when 'pixels' then seen else scored end)) then
        perform mill.refuse('PM003', 'a tag is of a position that was not scored in this part');
    end if;
    if not in_pass and exists (select i.n from inbox.tag i
                                where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
                               except select s.n from mill.to_tag(t) s) then
        perform mill.refuse('PM003', 'a position is not of this task, or was submitted already');
    end if;
    if exists (
        select
          from inbox.tag i
          join mill.model g on g.model_id = i.model_id
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           -- NaN is above every number, and equals itself
           and (i.value in ('NaN', 'Infinity', '-Infinity')
                or (i.label is not null) <> (g.labels is not null and i.value is not null)
                or i.label not between 0 and cardinality(g.labels) - 1)
    ) then
        perform mill.refuse('PM003', 'a tag is malformed: a value that is not finite must be null, a label must be one of its tagger''s');
    end if;
end
$$;

comment on function mill.check_tags is 'Refuses what a score worker must not submit as tags.';

create function mill.accept_tags(s mill.submission, t mill.task, m mill.model, sender name) returns void
language plpgsql
as $$
declare
    accepted bigint;
    pixels constant integer[] := array(select g.model_id from mill.model g where g.kind = 'pixels');
begin
    with sent as materialized (
        select i.* from inbox.tag i where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
    ), tagged as (
        insert into mill.tag (batch_id, model_id, attempt, n, label, value, submission_id)
        select t.batch_id, i.model_id, t.attempt, i.n, i.label, i.value, s.submission_id
          from sent i
         -- what is new as its embedding is new; below or, a query of each row and not a join: without statistics,
         -- as in each new partition, that took 3 s for 2,500 rows
         where m.kind = 'clip' and i.model_id <> all (pixels)
            -- one tag that counts: meanwhile the next embedding may have been tagged in its pass; and scores that are
            -- made again may come with tags of pixels that are there, since those did not go with the scores
            or not exists (select from mill.tag g
                            where g.batch_id = t.batch_id and g.model_id = i.model_id and g.attempt = t.attempt and g.n = i.n
                              and not exists (select from mill.withdrawn w where w.submission_id = g.submission_id))
               -- meanwhile the embedding may have been withdrawn
               and (m.kind in ('clip', 'pixels')
                    or exists (select from mill.embedding e
                                where e.batch_id = t.batch_id and e.n = i.n and e.attempt = t.attempt and e.model_id = m.base_model_id
                                  and not exists (select from mill.withdrawn w where w.submission_id = e.submission_id)))
    )
    select count(*) into accepted from sent;
    if accepted <> s.tag_count then
        perform mill.refuse('23000', format('%s tags were submitted and %s are there', s.tag_count, accepted));
    end if;
end
$$;

comment on function mill.accept_tags is
    'Moves the tags of a score submission from inbox.tag into tag; leaves out those that are there.';

-- The model is locked, as add_model locks it: a tagger that is added meanwhile is seen either here or there.
create function mill.queue_tagging(t mill.task) returns void
language plpgsql
as $$
declare
    g mill.model;
    x mill.task := t;
begin
    perform from mill.model where model_id = t.model_id for share;
    for g in select * from mill.model where base_model_id = t.model_id and retired_at is null order by model_id loop
        x.task_id := null;
        x.model_id := g.model_id;
        insert into mill.task (kind, batch_id, attempt, model_id)
        select 'score', t.batch_id, t.attempt, g.model_id
         where exists (select from mill.to_tag(x))
           and (g.kind <> 'pixels' or exists (select from mill.task d where d.kind = 'download' and d.batch_id = t.batch_id
                                                 and d.attempt = t.attempt and d.slot is not null))
        on conflict (batch_id, attempt, model_id) where kind = 'score'
        do update set state = 'ready', tries = 0, ready_at = now(), changed_at = now()
                where mill.task.state in ('done', 'parked');
    end loop;
end
$$;

comment on function mill.queue_tagging is
    'Makes, of a clip model''s task that is done, a task for each of its taggers that did not come in the same pass.';

create function mill.withdraw_tags(t mill.task, why text) returns void
language plpgsql
as $$
declare
    x mill.task;
    s mill.submission;
begin
    -- who holds one has read the embeddings: what comes of them must not pass for tags of the next
    for x in
        select y.* from mill.task y join mill.model g using (model_id)
         where y.kind = 'score' and y.batch_id = t.batch_id and y.attempt = t.attempt
           and g.base_model_id = t.model_id and g.kind <> 'pixels'
         order by y.task_id for update of y
    loop
        continue when x.state <> 'leased';
        perform mill.end_lease(l.lease_id, 'expired') from mill.lease l where l.task_id = x.task_id and l.ended_at is null;
        update mill.task set state = 'ready', ready_at = now(), reason = why, changed_at = now() where task_id = x.task_id;
    end loop;
    for s in
        select z.* from mill.submission z join mill.task y using (task_id) join mill.model g using (model_id)
         where y.kind = 'score' and y.batch_id = t.batch_id and y.attempt = t.attempt
           and g.base_model_id = t.model_id and g.kind <> 'pixels' and z.state in ('received', 'accepted')
         order by y.task_id, z.submission_id
    loop
        select * into s from mill.submission where submission_id = s.submission_id for update;
        if s.state = 'received' then
            perform mill.reject(s, why);
        elsif s.state = 'accepted' then
            perform mill.withdraw(s.submission_id, why);
        end if;
    end loop;
end
$$;

comment on function mill.withdraw_tags is
    'Takes back what tasks of taggers made of embeddings that are being withdrawn, and those tasks from who holds them.';

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
       or t.kind = 'score' and exists (select from mill.left_to_score(t)) then
        perform mill.put_back(p_task_id, 'a part of what was submitted was rejected', true);
        return;
    end if;
    update mill.task set state = 'done', reason = null, changed_at = now() where task_id = p_task_id;
    if t.kind = 'download' then
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model
          where kind = 'clip' and retired_at is null order by model_id;
        perform mill.draw_checks(t);
    elsif t.kind = 'score' then
        perform mill.queue_tagging(t);
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
    delete from inbox.tag where lease_id = s.lease_id and part = s.part;
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
            update mill.task set state = 'ready', tries = 0, excused = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id;
        when 'download' then
            insert into mill.task (kind, batch_id, attempt, positions)
            select 'download', t.batch_id, mill.next_attempt(t.batch_id), array_agg(d.n order by d.n)
              from mill.download d
             where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = p_submission_id;
        when 'score' then
            update mill.task set state = 'ready', tries = 0, excused = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id and state in ('done', 'parked');
            perform mill.withdraw_tags(t, why);
    end case;
end
$$;

-- What the steward does besides accepting: late leases, the thumbnail ring, partitions.

-- An outage shows in what others' leases lack: a holder beats every quarter of lease_seconds, so in half of them everybody
-- who can is heard. Logins are counted and not leases: who holds many loses them all in one crash. One's own silence proves
-- nothing, and that of one other little.
create function mill.cut_off(p_at timestamptz) returns integer[]
language sql
as $$
    with late as materialized (
        select i.worker_id, max(l.expires_at) as expired_at,
               max(greatest(l.claimed_at, l.expires_at - make_interval(secs => s.lease_seconds))) + make_interval(secs => s.lease_seconds) / 2 as silent_from
          from mill.lease l join mill.instance i using (instance_id) cross join mill.setting s
         where l.ended_at is null and l.expires_at <= p_at
           and l.expires_at < l.deadline  -- its end, whoever is heard
         group by i.worker_id, s.lease_seconds
    ), held as materialized (
        select i.worker_id, l.claimed_at, l.expires_at, l.ended_at,
               case when l.expires_at = l.deadline then l.expires_at
                    when l.ended_as in ('released', 'failed') then l.ended_at
                    else greatest(l.claimed_at, l.expires_at - make_interval(secs => s.lease_seconds)) end as heard_at
          from (select * from mill.lease where ended_at is null
                union all
                select * from mill.lease where ended_as <> 'completed' and ended_at > (select min(silent_from) from late)) l
          join mill.instance i using (instance_id) cross join mill.setting s
    )
    select coalesce(array_agg(late.worker_id), '{}')
      from late,
           lateral (select count(*) as all_of, count(*) filter (where not heard) as silent
                      from (select bool_or(h.heard_at > late.silent_from) as heard
                              from held h
                             where h.worker_id <> late.worker_id and h.claimed_at <= late.expired_at
                               and h.expires_at > late.silent_from and (h.ended_at is null or h.ended_at > late.silent_from)
                             group by h.worker_id) each_login) others
     where late.silent_from < late.expired_at and others.silent >= 2 and 2 * others.silent > others.all_of
$$;

comment on function mill.cut_off is
    'Workers whose leases are late at this moment because of an outage of the network, a pooler or the server: of the other logins that held leases then, '
    'two at least and more than half gave no sign of life either in the last half of lease_seconds.';

create or replace function api.expire_leases_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    moment constant timestamptz := clock_timestamp();
    -- by key from here on: a plan for a share of all leases that there ever were would read every task
    late constant bigint[] := array(select lease_id from mill.lease where ended_at is null and expires_at <= moment);
    cut_off integer[];
    t record;
    outage text;
    expired integer := 0;
begin
    if late = '{}' then
        return 0;
    end if;
    cut_off := mill.cut_off(moment);
    for t in
        select x.task_id, x.excused < max_tries as excusable, l.lease_id, i.worker_id = any (cut_off) as is_cut_off,
               greatest(l.claimed_at, l.expires_at - make_interval(secs => lease_seconds)) as seen_at
          from mill.task x join mill.lease l using (task_id) join mill.instance i using (instance_id) cross join mill.setting
         where l.lease_id = any (late) and l.ended_at is null and l.expires_at <= moment
         order by x.task_id
           for update of x, l skip locked  -- a heartbeat that does not commit holds l
    loop
        -- looked at again under the lock: it may have been completed meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            outage := case when t.seen_at < pg_postmaster_start_time() then 'while the server was away'
                           when t.is_cut_off then 'in an outage, like those of most others' end;
            -- not for ever: a file that takes the whole machine down is an outage, too
            if outage is not null and t.excusable then
                update mill.task
                   set state = 'ready', changed_at = now(), excused = excused + 1, reason = format('lease %s was lost %s', t.lease_id, outage)
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
    'holder''s last sign of life, or most others were cut off with it; a task is excused max_tries times at most.';

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
    swept := swept + more;
    delete from inbox.tag i
     where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)
       and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.part = i.part and s.state = 'received');
    get diagnostics more = row_count;
    return swept + more;
end
$$;

create or replace function mill.slot_is_done(p_slot smallint) returns boolean
language sql stable
as $$
    select exists (select from mill.model where kind = 'clip' and retired_at is null)
       and not exists (
        select
          from mill.task d
          left join mill.task s on s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt
                and s.model_id in (select model_id from mill.model where kind in ('clip', 'pixels'))  -- the others read embeddings
          cross join mill.setting
         where d.kind = 'download' and d.slot = p_slot
           and (exists (select from mill.submission r where r.task_id = d.task_id and r.state = 'received')
                or 'ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                -- a download can be made again: not for it does everybody wait
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                   and exists (select from mill.thumbnail_slot where state <> 'full')
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;

create function mill.add_model(
    p_name text, p_pretrained text, p_digest text, p_dims integer, p_kind text default 'clip', p_base_id integer default null,
    p_labels text[] default null, p_revision text default '', p_licence text default '', p_metrics jsonb default '{}',
    p_weights bytea default null,
    out model_id integer, out queued integer, out unreachable integer
)
language plpgsql
as $$
#variable_conflict use_column
begin
    -- a task that is being finished looks for taggers: before this transaction, or after it
    perform from mill.model m where m.model_id = p_base_id for no key update;
    insert into mill.model (name, pretrained, digest, dims, kind, base_model_id, labels, revision, licence, metrics, weights)
    values (p_name, p_pretrained, p_digest, p_dims, p_kind, p_base_id, p_labels, p_revision, p_licence, p_metrics, p_weights)
    on conflict (digest) do update
       set name = excluded.name, pretrained = excluded.pretrained,
           -- who adds it again to queue what is left says less of it
           revision = coalesce(nullif(excluded.revision, ''), model.revision),
           licence = coalesce(nullif(excluded.licence, ''), model.licence),
           metrics = coalesce(nullif(excluded.metrics, '{}'), model.metrics),
           retired_at = null
    returning model.model_id into model_id;
    update mill.task t set state = 'ready', tries = 0, ready_at = now(), changed_at = now()
     where t.model_id = add_model.model_id and t.state = 'parked' and t.reason = 'its model was retired';
    perform mill.queue_scoring(t.batch_id, t.attempt, add_model.model_id)
       from mill.task t where t.kind = 'download' and t.state = 'done' and t.slot is not null and p_kind = 'clip';
    insert into mill.task (kind, batch_id, attempt, model_id)
    select 'score', t.batch_id, t.attempt, add_model.model_id
      from mill.task t
      join mill.task d on d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt
     where t.kind = 'score' and t.model_id = p_base_id and t.state = 'done'
       and (p_kind <> 'pixels' or d.slot is not null)
     order by t.task_id
    on conflict do nothing;
    select count(*) into queued from mill.task t where t.model_id = add_model.model_id and t.state = 'ready';
    select count(*) into unreachable
      from mill.task d
     where d.kind = 'download' and d.state = 'done' and d.slot is null and not d.is_check and p_kind in ('clip', 'pixels')
       and not exists (select from mill.task s
                        where s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt and s.model_id = add_model.model_id);
end
$$;

comment on function mill.add_model is
    'Makes a model or a tagger known, and queues the batches that it can be computed for: those whose thumbnails are still there, '
    'or for a head those that have embeddings of its clip model. unreachable: downloads that only a new download could give it.';

create function mill.retire_model(p_model_id integer, out busy bigint, out parked bigint)
language plpgsql
as $$
begin
    perform from mill.model where model_id = p_model_id for no key update;
    perform from mill.task where model_id = p_model_id and state in ('ready', 'leased', 'submitted') order by task_id for update;
    select count(*) filter (where state <> 'ready'), count(*) filter (where state = 'ready') into busy, parked
      from mill.task where model_id = p_model_id and state in ('ready', 'leased', 'submitted');
    if busy = 0 then
        update mill.model set retired_at = coalesce(retired_at, now()) where model_id = p_model_id;
        update mill.task set state = 'parked', reason = 'its model was retired', changed_at = now()
         where model_id = p_model_id and state = 'ready';
    end if;
end
$$;

comment on function mill.retire_model is
    'Nothing is scored by a model or tagger any more, and its ready tasks are parked; what was scored stays. Nothing is done while tasks of '
    'it are leased or await acceptance (busy). add_model makes it active again.';

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
                              and o.state <> 'done' and not o.is_check and (o.positions is null or d.n = any (o.positions))
                              -- what it was given and lost again it does not ask for
                              and not exists (select from mill.download e
                                               where e.batch_id = d.batch_id and e.n = d.n and e.attempt = o.attempt))
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
    perform from mill.task x
      where x.task_id in (
            select l.task_id from mill.lease l join mill.instance i using (instance_id) where l.ended_at is null and i.worker_id = w.worker_id
            union
            select y.task_id from mill.submission y
             where y.worker_id = w.worker_id and y.state in ('received', 'accepted') and y.received_at >= coalesce(p_since, '-infinity')
            union  -- with scores go the tags that others made of them
            select g.task_id
              from mill.submission y
              join mill.task b using (task_id)
              join mill.model m on m.base_model_id = b.model_id
              join mill.task g on g.kind = 'score' and g.batch_id = b.batch_id and g.attempt = b.attempt and g.model_id = m.model_id
             where y.worker_id = w.worker_id and y.state = 'accepted' and y.received_at >= coalesce(p_since, '-infinity') and b.kind = 'score')
      order by x.task_id for update;
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
    perform mill.check_again(w.worker_id);
end
$$;

comment on function mill.quarantine_worker is
    'Takes back all that a worker contributed since then (null: ever): ends its leases, rejects what awaits acceptance, withdraws what was '
    'accepted, and queues it again; what it had found right in checks is checked again. All null where there is no such worker. The worker itself is ended by disable_worker.';

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
       or t.kind = 'score' and (select m.kind from mill.model m where m.model_id = t.model_id) in ('head', 'zero-shot')
       or t.kind = 'download' and not exists (select from mill.download x where x.batch_id = t.batch_id and x.attempt = t.attempt) then
        update mill.task set state = 'ready', tries = 0, excused = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.left_to_score(t) n where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    if t.kind = 'score' then
        perform mill.queue_tagging(t);  -- of what was scored of it
    end if;
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
           -- what a check tried, or was taken back, was not tried
           and (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removal r where r.md5 = p.url_key)
         group by d.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ least(t.attempts - 1, 20)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, count(*) filter (where not x.is_check) as attempts,
                     max(x.changed_at) filter (where not x.is_check) as ended_at, bool_or(x.state <> 'done' and not x.is_check) as busy
                from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from (select p.*, mill.next_attempt(p.batch_id) as next from planned p where not p.busy order by p.batch_id) q
         where next = attempt + 1  -- else another's retry came first, or a check
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
           and (select count(*) from mill.download x where x.batch_id = l.batch_id and x.n = l.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
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

create or replace view mill.current_score as
select s.*
  from mill.score s
  join mill.current_download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id);

create view mill.current_tag as
select g.*
  from mill.tag g
  join mill.current_download d on d.batch_id = g.batch_id and d.n = g.n and d.attempt = g.attempt
 where not exists (select from mill.withdrawn w where w.submission_id = g.submission_id);

comment on view mill.current_tag is 'The tags that count for a pair: not withdrawn, and of the download that counts.';

create or replace view report.score as
select mill.sample_id(s.batch_id, s.n) as sample_id, s.batch_id, s.n, m.name as model, m.pretrained,
       o.name as outcome, s.similarity, s.text_tokens
  from mill.current_score s
  join mill.model m using (model_id)
  join mill.score_outcome o on o.code = s.outcome;

comment on column report.score.text_tokens is 'Tokens of the text before the model cut it to its length, start and end among them; null: not told';

create view report.tag as
select mill.sample_id(g.batch_id, g.n) as sample_id, g.batch_id, g.n, m.name as model, g.value, m.labels[g.label + 1] as label
  from mill.current_tag g
  join mill.model m using (model_id);

comment on view report.tag is 'What taggers say of images: every tag that counts. Name a range of batch_id.';

comment on column report.tag.sample_id is 'As report.pair.sample_id';

comment on column report.tag.batch_id is 'As report.pair.batch_id';

comment on column report.tag.n is 'As report.pair.n';

comment on column report.tag.model is 'Name of the tagger';

comment on column report.tag.value is 'What it gives; null where that was no finite number';

comment on column report.tag.label is 'The category that it finds; null for taggers without categories';

create view report.wrong_thumbnail as
select w.name as worker, count(*) as thumbnails, count(*) filter (where s.outcome = 3) as wrong
  from mill.current_score s
  join mill.download d on d.batch_id = s.batch_id and d.n = s.n and d.attempt = s.attempt
  join mill.submission u on u.submission_id = d.submission_id
  join mill.worker w on w.worker_id = u.worker_id
  join mill.model m on m.model_id = s.model_id and m.kind = 'clip'
 group by w.worker_id, w.name;

comment on view report.wrong_thumbnail is
    'Thumbnails by who sent them, and how many of them show something else than the image whose hash came with them. Reads every score.';

comment on column report.wrong_thumbnail.worker is 'The download worker';

comment on column report.wrong_thumbnail.thumbnails is 'Thumbnails of it that were looked at, once for each model';

comment on column report.wrong_thumbnail.wrong is 'Of those, the ones whose dHash is far from the hash that came with them';

create or replace view report.score_count as
select m.name as model, coalesce(p.language, 'nolang') as language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from mill.pair p
  join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n and d.outcome = 0
  join mill.model m on m.kind = 'clip'
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 3;

create or replace view report.model as
select m.name, m.pretrained, m.digest, m.dims, m.active_since, m.kind, b.name as base, m.labels, m.revision, m.licence, m.metrics, m.retired_at
  from mill.model m
  left join mill.model b on b.model_id = m.base_model_id;

comment on view report.model is 'The models that score, and the taggers.';

comment on column report.model.name is 'open_clip''s model name, the folder of a model, or a tagger''s name';

comment on column report.model.kind is 'clip, or of a tagger: head, zero-shot (both read embeddings) or pixels';

comment on column report.model.base is 'A tagger''s clip model';

comment on column report.model.labels is 'zero-shot: names of the categories';

comment on column report.model.revision is 'Which version of the weights';

comment on column report.model.licence is 'Of the weights; empty where nobody said';

comment on column report.model.metrics is 'What was measured of it on held-out data';

comment on column report.model.retired_at is 'Since when nothing is scored by it any more; null while it is active';

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
        -- a canary is in many leases at once, and who does not commit must not hold the others up: then it is not counted
        update mill.canary set answers = answers + 1
         where canary_id in (select c.canary_id from mill.canary c where c.canary_id in (select canary_id from answer)
                                for no key update skip locked)
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

-- Not random(): complete_v1 may be what ends a task, and a worker could roll it back and draw again until nothing was
-- drawn (pg_stat_xact_all_tables shows it). The microsecond of the acceptance is the steward's, and it cannot read it.
create function mill.is_drawn(p_streak integer, p_accepted_at timestamptz, p_task_id bigint, p_worker_id integer) returns boolean
language sql stable
return hashint8extended((extract(epoch from p_accepted_at) * 1000000)::bigint, hashint8extended(p_task_id, p_worker_id)) & 9223372036854775807
       < 9223372036854775807 / greatest(p_streak, 1);

comment on function mill.is_drawn is 'Whether a worker is checked for a task: once in p_streak tasks, and the same whenever it is asked.';

create or replace function mill.draw_checks(t mill.task) returns void
language plpgsql
as $$
declare
    s mill.setting;
    w record;
    sample integer[];
begin
    select * into s from mill.setting;
    if t.is_check or s.check_urls = 0 then
        return;
    end if;
    for w in
        select x.worker_id, x.streak, array_agg(y.submission_id) as submissions, max(max(y.decided_at)) over () as accepted_at
          from mill.submission y join mill.worker x using (worker_id)
         where y.task_id = t.task_id and y.state = 'accepted' and x.disabled_at is null
           and not exists (select from mill.withdrawn z where z.submission_id = y.submission_id)
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
        elsif (w.streak < 10 or mill.is_drawn(w.streak, w.accepted_at, t.task_id, w.worker_id))
              -- with so many undecided another one tells nothing new, and somebody has to do them
              and (select count(*) from mill.recheck r where r.worker_id = w.worker_id and r.state in ('open', 'disputed')) < 20 then
            sample := array(
                select d.n
                  from (select x.n from mill.download x
                         where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id = any (w.submissions)
                         order by random() limit s.check_urls) d
                 where not exists (select from mill.pair p join mill.removal r on r.md5 = p.url_key
                                    where p.batch_id = t.batch_id and p.n = d.n));
            if cardinality(sample) >= 5 then  -- fewer tell nothing
                insert into mill.recheck (worker_id, task_id, repeat_task_id)
                values (w.worker_id, t.task_id, mill.queue_check(t, sample, array[w.worker_id]));
            end if;
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
    with who as materialized (
        select coalesce(p_worker_id, mill.repeated_by(p_task_id)) as checked, mill.repeated_by(p_repeat_id) as checker
    )
    select count(alike), count(*) filter (where alike)
      from who
      join mill.task t on t.task_id = p_task_id
      join mill.task r on r.task_id = p_repeat_id
      join mill.download a on a.batch_id = t.batch_id and a.attempt = t.attempt
      join mill.submission s on s.submission_id = a.submission_id and s.worker_id = who.checked
      join mill.download b on b.batch_id = r.batch_id and b.attempt = r.attempt and b.n = a.n
      join mill.submission v on v.submission_id = b.submission_id and v.worker_id = who.checker
      join mill.outcome ob on ob.code = b.outcome
     cross join lateral (select case
           when a.outcome = 0 and b.outcome = 0 then a.sha256 = b.sha256 or mill.look_alike(a.dhash, b.dhash)
           when b.outcome = 0 then false
           when a.outcome = 0 and not ob.retry and b.outcome <> 50 then false
       end as alike) x
$$;

comment on function mill.compare is
    'How the downloads of a task (of one worker; null: of who did most of it) compare with those of a task that repeats some of its '
    'positions: with what the one who did most of that says, since a repeat that was given back may hold a part of somebody else''s.';

create or replace function api.judge_checks_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    w mill.worker := mill.me('steward');
    r mill.recheck;
    judged integer := 0;
    late integer := 0;
begin
    begin
        lock table mill.recheck in share update exclusive mode nowait;  -- two who judge would lock in two orders
    exception when lock_not_available then
        return 0;
    end;
    for r in
        select x.* from mill.recheck x
         where x.state in ('open', 'disputed')
           and (x.repeat_task_id is null
                or exists (select from mill.task t
                            where t.task_id = coalesce(x.second_task_id, x.repeat_task_id) and t.state in ('done', 'parked')))
         order by x.recheck_id limit 20
    loop
        begin
            judged := judged + 1;
            exit when mill.judge(r);  -- a batch is locked after tasks: with the next check's tasks it would be the other way round
        exception when lock_not_available or deadlock_detected then
            judged := judged - 1;
            late := late + 1;
            perform mill.end_idle(array[r.worker_id, mill.repeated_by(r.repeat_task_id)]);
            exit when late = 3;
        end;
    end loop;
    return judged;
end
$$;

comment on function api.judge_checks_v1 is
    'Decides checks whose repeats are done; one at most that has tasks queued or taken back. Returns how many. Waits for nobody: a check '
    'whose rows an open transaction holds is left to the next round.';

create function mill.end_idle(p_workers integer[]) returns void
language sql
as $$
    select pg_terminate_backend(a.pid)
      from pg_stat_activity a join mill.worker x on x.login = a.usename
     where x.worker_id = any (p_workers) and a.state like 'idle in transaction%'
       and pg_has_role(current_user, 'pg_signal_backend', 'usage')
$$;

comment on function mill.end_idle is
    'Ends the sessions of workers that keep a transaction open: nobody holds its own judgement up. Does nothing without the right of `pairmill db secure`.';

create or replace function api.sweep_canaries_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
begin
    delete from mill.canary c
     where c.canary_id in (select x.canary_id from mill.canary x where not x.by_admin for update skip locked)
       and (c.answers >= 3 or c.added_at < now() - interval '7 days'  -- known by then, or stale
            or exists (select from mill.removal r where r.md5 = md5(c.url)::uuid or r.sha256 = c.sha256));
    get diagnostics swept = row_count;
    return swept;
end
$$;

create function mill.judge(r mill.recheck) returns boolean
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
        return true;
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
    if verdict = 'void' and (last.state = 'parked' or found.compared < 5 and mill.told_little(last)) then
        return mill.ask_again(r, last);
    end if;
    return verdict = 'failed' or verdict = 'agreed' and r.state = 'disputed';
end
$$;

comment on function mill.judge is
    'Decides a check. Where two do not agree, a third worker''s repeat decides which of them was wrong; that of an admin''s own worker decides '
    'at once. Returns whether tasks were queued or taken back.';

create function mill.told_little(t mill.task) returns boolean
language sql stable
as $$
    select count(*) filter (where o.retry or d.outcome = 50) * 5 > count(*)
      from mill.download d join mill.outcome o on o.code = d.outcome
     where d.batch_id = t.batch_id and d.attempt = t.attempt
$$;

comment on function mill.told_little is 'Whether a fifth of a repeat, or more, was the repeater''s own trouble.';

create function mill.ask_again(r mill.recheck, t mill.task) returns boolean
language plpgsql
as $$
begin
    if (select count(*) from mill.recheck x where x.worker_id = r.worker_id and x.task_id = r.task_id and x.state = 'void') >= 3 then
        return false;
    end if;
    insert into mill.recheck (worker_id, task_id, repeat_task_id)
    values (r.worker_id, r.task_id, mill.queue_check(t, t.positions, t.avoid_workers));
    return true;
end
$$;

comment on function mill.ask_again is
    'Has a sample repeated anew whose repeat told nothing, three times at most: a friend who says that all timed out must not end a check.';

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
                                join mill.instance i using (instance_id) join mill.worker v on v.worker_id = i.worker_id
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
     where worker_id = p_worker_id and streak is not null
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
     where worker_id = p_worker_id and disabled_at is null;
    -- what came in up to the last task that others found right stays, of those before this one; but who answers canaries wrong may have friends
    perform mill.quarantine_worker(
        w.name,
        (select max(s.received_at) + interval '1 microsecond'
           from mill.recheck r join mill.submission s on s.task_id = r.task_id and s.worker_id = r.worker_id
          where r.worker_id = p_worker_id and r.state = 'agreed' and r.repeat_task_id is not null and not p_by_canaries
            and s.received_at < (select min(y.received_at) from mill.submission y
                                  where y.task_id = p_task_id and y.worker_id = p_worker_id and y.state = 'accepted')
            and (select stopped_because is null from mill.worker c
                  where c.worker_id = mill.repeated_by(coalesce(r.second_task_id, r.repeat_task_id)))),
        'its worker was stopped: others did not find the same');
end
$$;

comment on function mill.count_check is
    'Counts a check''s share of agreement for or against a worker: a failed one takes the task''s downloads back; a bad average stops the worker '
    'and takes back all since the last task before that was found right, and all there is where canaries told it. Of one that was disabled, too.';

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
           and not exists (select from mill.recheck y where y.worker_id = x.worker_id and y.task_id = x.task_id and y.recheck_id > x.recheck_id)
         order by x.recheck_id desc limit 20
    loop
        insert into mill.recheck (worker_id, task_id, repeat_task_id)
        values (r.worker_id, r.task_id, mill.queue_check(r.repeat, (r.repeat).positions, array[r.worker_id, p_stopped_id]));
    end loop;
end
$$;

comment on function mill.check_again is 'Has others check what a worker that was stopped or quarantined had found right: liars have friends.';

create trigger take_in after insert on inbox.pair
    referencing new table as copied for each statement execute function mill.take_in();
create trigger take_in after insert on inbox.score
    referencing new table as copied for each statement execute function mill.take_in();
create trigger take_in after insert on inbox.tag
    referencing new table as copied for each statement execute function mill.take_in();

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
    f text;
begin
    foreach f in array array['api.thumbnails_v2', 'api.submit_score_v2', 'api.taggers_v1', 'api.weights_v1', 'api.embeddings_v1'] loop
        execute format('grant execute on function %s to %I', f, prefix || 'score');
    end loop;
    execute format('grant insert (text_tokens) on inbox.score to %I', prefix || 'score');
    execute format('grant insert (lease_id, part, model_id, n, label, value) on inbox.tag to %I', prefix || 'score');
    execute format('grant select on report.tag, report.wrong_thumbnail to %I', prefix || 'researcher');
end
$$;

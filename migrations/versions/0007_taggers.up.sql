-- Taggers: heads on embeddings and models of pixels, whose tags come in the pass of their clip model or as tasks of their own.
-- What a login has left unfinished is counted of its own leases alone.

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
        execute format('create table mill.%I (like mill.tag including all)', child);
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

drop function mill.add_model(text, text, text, integer);

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
    'Makes the partitions of pair, download, score, embedding, opt_out and tag that hold batches up to this one.';

create or replace function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l
     where l.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
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
    insert into mill.lease (lease_id, task_id, instance_id, worker_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id, w.worker_id,
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
                                             'count', (select count(*) from mill.left_to_score(t)))
    end;
    return next;
end
$$;

comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location, link_kinds, last_try}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v2, or of a head embeddings_v1, must give.';

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
             where t.kind = 'score' and t.state in ('ready', 'leased', 'submitted') and m.digest = p_model_digest)
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

-- The score worker's part: thumbnails and texts out, similarities, embeddings and tags in.

create or replace function mill.to_score(t mill.task) returns table (n integer, submission_id bigint)
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

create function mill.thumbnails_of(t mill.task) returns table (n integer, submission_id bigint)
language plpgsql stable
as $$
begin
    if (select kind from mill.model where model_id = t.model_id) = 'clip' then
        return query select s.n, s.submission_id from mill.to_score(t) s;
    else
        return query
        select d.n, d.submission_id
          from mill.to_tag(t) s join mill.download d on d.batch_id = t.batch_id and d.n = s.n and d.attempt = t.attempt;
    end if;
end
$$;

comment on function mill.thumbnails_of is 'left_to_score, with the submission of each thumbnail.';

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
        'select s.n, p.text, h.image, d.dhash'
        '  from mill.thumbnails_of($1) s'
        '  join mill.pair p on p.batch_id = $2 and p.n = s.n'
        '  join mill.download d on d.batch_id = $2 and d.n = s.n and d.attempt = $3'
        '  join mill.thumbnail h on h.slot = %s and h.batch_id = $2 and h.attempt = $3'
        '   and h.n = s.n and h.submission_id = s.submission_id'
        ' where s.n >= $4 and s.n < $5'
        ' order by s.n', in_slot)
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
    if p_scores <> (select count(distinct i.n) from inbox.score i join mill.to_score(t) s on s.n = i.n
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
     where m.digest = p_model_digest
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
      from mill.to_tag(t) s
      join mill.embedding e on e.batch_id = t.batch_id and e.n = s.n and e.attempt = t.attempt and e.model_id = base
     where e.n >= p_from and e.n < p_to
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
    if in_pass and exists (
        select
          from inbox.tag i
          join mill.model g on g.model_id = i.model_id
         where i.lease_id = p_lease_id and i.part = p_part and i.worker = session_user
           and not exists (select from inbox.score s
                            where s.lease_id = p_lease_id and s.part = p_part and s.worker = session_user and s.n = i.n
                              and (s.outcome = 0 or g.kind = 'pixels'))) then
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
begin
    with sent as materialized (
        select i.* from inbox.tag i where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
    ), tagged as (
        insert into mill.tag (batch_id, model_id, attempt, n, label, value, submission_id)
        select t.batch_id, i.model_id, t.attempt, i.n, i.label, i.value, s.submission_id
          from sent i
         -- meanwhile the embedding may have been withdrawn, and the next one tagged in its pass
         where m.kind = 'clip'
            or not exists (select from mill.tag g
                            where g.batch_id = t.batch_id and g.model_id = i.model_id and g.attempt = t.attempt and g.n = i.n
                              and not exists (select from mill.withdrawn w where w.submission_id = g.submission_id))
               and (m.kind = 'pixels'
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

comment on function mill.accept_tags is 'Moves the tags of a score submission from inbox.tag into tag.';

-- The model is locked, as add_model locks it: a tagger that is added meanwhile is seen either here or there.
create function mill.queue_tagging(t mill.task) returns void
language plpgsql
as $$
declare
    g mill.model;
    x mill.task := t;
begin
    perform from mill.model where model_id = t.model_id for share;
    for g in select * from mill.model where base_model_id = t.model_id order by model_id loop
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
    s mill.submission;
begin
    for s in
        select x.* from mill.submission x join mill.task y using (task_id) join mill.model g using (model_id)
         where y.kind = 'score' and y.batch_id = t.batch_id and y.attempt = t.attempt
           and g.base_model_id = t.model_id and g.kind <> 'pixels' and x.state in ('received', 'accepted')
         order by y.task_id, x.submission_id
    loop
        perform from mill.task where task_id = s.task_id for update;
        select * into s from mill.submission where submission_id = s.submission_id for update;
        if s.state = 'received' then
            perform mill.reject(s, why);
        elsif s.state = 'accepted' then
            perform mill.withdraw(s.submission_id, why);
        end if;
    end loop;
end
$$;

comment on function mill.withdraw_tags is 'Takes back what tasks of taggers made of embeddings that are being withdrawn.';

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
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model where kind = 'clip' order by model_id;
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
            perform mill.withdraw_tags(t, why);
    end case;
end
$$;

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
    select exists (select from mill.model where kind = 'clip')
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
    perform from mill.model m where m.model_id = p_base_id for update;
    insert into mill.model (name, pretrained, digest, dims, kind, base_model_id, labels, revision, licence, metrics, weights)
    values (p_name, p_pretrained, p_digest, p_dims, p_kind, p_base_id, p_labels, p_revision, p_licence, p_metrics, p_weights)
    on conflict (digest) do update
       set name = excluded.name, pretrained = excluded.pretrained, revision = excluded.revision, licence = excluded.licence,
           metrics = excluded.metrics
    returning model.model_id into model_id;
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
        update mill.task set state = 'ready', tries = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.left_to_score(t) n where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), anew where anew is not null;
    return 'download';
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
select m.name, m.pretrained, m.digest, m.dims, m.active_since, m.kind, b.name as base, m.labels, m.revision, m.licence, m.metrics
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

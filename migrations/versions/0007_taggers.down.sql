-- Without taggers: their tags go with them, and can be computed again. A thumbnail that shows something else is broken.

update mill.score set outcome = 1 where outcome = 3;
delete from mill.withdrawn where submission_id in (
    select submission_id from mill.submission join mill.task t using (task_id) join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.submission where task_id in (select t.task_id from mill.task t join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.lease where task_id in (select t.task_id from mill.task t join mill.model m using (model_id) where m.kind <> 'clip');
delete from mill.task where model_id in (select model_id from mill.model where kind <> 'clip');
delete from mill.model where kind <> 'clip';

drop view report.wrong_thumbnail;
drop view report.tag;
drop view mill.current_tag;
drop view report.model;
drop view report.score_count;
drop view report.score;
drop view mill.current_score;
drop function mill.add_model(text, text, text, integer, text, integer, text[], text, text, jsonb, bytea);
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
drop function mill.thumbnails_of(mill.task);
drop function mill.left_to_score(mill.task);

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
alter table mill.model drop column weights, drop column metrics, drop column licence, drop column revision, drop column labels,
    drop column base_model_id, drop column kind;
comment on table mill.model is 'A CLIP model that scores pairs.';
comment on column mill.model.name is 'open_clip''s model name, or the folder of a model';
comment on column mill.model.dims is 'Length of an embedding';
delete from mill.score_outcome where code = 3;


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

create or replace function mill.unfinished(p_worker_id integer) returns bigint
language sql stable
as $$
    select count(*)
      from mill.lease l join mill.instance i using (instance_id)
     where i.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour'
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

-- The score worker's part: thumbnails and texts out, similarities and embeddings in.

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

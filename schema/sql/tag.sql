-- Taggers: models that give a value for an image, from its embedding or its thumbnail, in the pass of their CLIP model or later.

-- The thumbnails of a backfill are of images that an earlier attempt downloaded: what is made of them is kept in its name.
create function mill.thumbnailed(t mill.task) returns table (n integer, of_attempt smallint)
language sql stable
as $$
    select d.n, d.attempt
      from mill.download d
     where d.batch_id = t.batch_id and d.attempt = t.attempt and d.outcome = 0
       and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
    union all
    select r.n, r.of_attempt
      from mill.refetch r
     where r.batch_id = t.batch_id and r.attempt = t.attempt and r.of_attempt is not null
       and not exists (select from mill.withdrawn w where w.submission_id = r.submission_id)
$$;
comment on function mill.thumbnailed is
    'Positions of a score task that have a thumbnail, and the download attempt that gave its image first; of a backfill an earlier one.';

create function mill.to_tag(t mill.task) returns table (n integer)
language sql stable
as $$
    with found as (
        select e.n, e.attempt
          from mill.model m
          join mill.embedding e on e.batch_id = t.batch_id and e.model_id = m.base_model_id
          left join mill.refetch r on r.batch_id = t.batch_id and r.n = e.n and r.attempt = t.attempt
         where m.model_id = t.model_id and m.kind in ('head', 'zero-shot')
           and e.attempt = coalesce(r.of_attempt, t.attempt)
           and not exists (select from mill.withdrawn w where w.submission_id = e.submission_id)
        union all
        select d.n, d.of_attempt
          from mill.model m
         cross join mill.thumbnailed(t) d
         where m.model_id = t.model_id and m.kind = 'pixels'
    )
    select f.n
      from found f
     where (f.n, f.attempt) not in (
           select g.n, g.attempt from mill.tag g
            where g.batch_id = t.batch_id and g.model_id = t.model_id
              and not exists (select from mill.withdrawn w where w.submission_id = g.submission_id))
       and f.n not in (
           select i.n
             from mill.submission s
             join inbox.tag i on i.lease_id = s.lease_id and i.part = s.part
            where s.task_id = t.task_id and s.state = 'received')
$$;
comment on function mill.to_tag is
    'Positions of a tagger''s task that have its input, an embedding or a thumbnail, and that no received or accepted submission covers yet.';

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
    'The taggers of a CLIP model: a scorer computes them in the same pass where it has their weights, and claims their tasks by their digest.';

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
    t mill.task := mill.require_lease(p_lease_id, 'score');
    base constant integer := (select base_model_id from mill.model where model_id = t.model_id);
    claimed_at constant timestamptz := (select l.claimed_at from mill.lease l where l.lease_id = p_lease_id);
begin
    return query
    select e.n, e.image
      from mill.embedding e
      left join mill.refetch r on r.batch_id = t.batch_id and r.n = e.n and r.attempt = t.attempt
     where e.batch_id = t.batch_id and e.attempt = coalesce(r.of_attempt, t.attempt) and e.model_id = base
       and e.n = any (array(select s from mill.left_to_score(t, claimed_at) s where s >= p_from and s < p_to))
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
    seen integer[];  -- a tagger of pixels sees positions that were not scored, too
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
    -- arrays, and not a join, which was planned as loops: 100 ms for five taggers' tags of 500 rows
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
                or i.text is not null and g.kind <> 'pixels'
                or i.label not between 0 and cardinality(g.labels) - 1)
    ) then
        perform mill.refuse('PM003', 'a tag is malformed: a value that is not finite must be null, a label must be one of its tagger''s, and only a tagger of pixels gives a text');
    end if;
end
$$;
comment on function mill.check_tags is 'Refuses malformed tags of a submission.';

create function mill.accept_tags(s mill.submission, t mill.task, m mill.model, sender name) returns void
language plpgsql
as $$
declare
    accepted bigint;
    pixels constant integer[] := array(select g.model_id from mill.model g where g.kind = 'pixels');
begin
    with sent as materialized (
        select i.*, coalesce(r.of_attempt, t.attempt) as of_attempt
          from inbox.tag i
          left join mill.refetch r on r.batch_id = t.batch_id and r.n = i.n and r.attempt = t.attempt
         where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
    ), tagged as (
        insert into mill.tag (batch_id, model_id, attempt, n, label, value, submission_id, text)
        select t.batch_id, i.model_id, i.of_attempt, i.n, i.label, i.value, s.submission_id, i.text
          from sent i
         -- a tag of the same pass is new as its embedding is new. After OR, a query of each row and not a join, which
         -- without statistics, as in each new partition, took 3 s for 2,500 rows
         where m.kind = 'clip' and i.model_id <> all (pixels)
            -- one tag counts for each position: meanwhile the next embedding may have been tagged in its pass; and scores that
            -- are made again may bring tags of pixels that are there, since those were not withdrawn with the scores
            or not exists (select from mill.tag g
                            where g.batch_id = t.batch_id and g.model_id = i.model_id and g.attempt = i.of_attempt and g.n = i.n
                              and not exists (select from mill.withdrawn w where w.submission_id = g.submission_id))
               -- meanwhile the embedding may have been withdrawn
               and (m.kind in ('clip', 'pixels')
                    or exists (select from mill.embedding e
                                where e.batch_id = t.batch_id and e.n = i.n and e.attempt = i.of_attempt and e.model_id = m.base_model_id
                                  and not exists (select from mill.withdrawn w where w.submission_id = e.submission_id)))
    )
    select count(*) into accepted from sent;
    if accepted <> s.tag_count then
        perform mill.refuse('23000', format('%s tags were submitted and %s are there', s.tag_count, accepted));
    end if;
end
$$;
comment on function mill.accept_tags is
    'Moves the tags of a score submission from inbox.tag into tag, without positions that have a tag.';

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
        on conflict (batch_id, attempt, kind, model_id) where batch_id is not null
        do update set state = 'ready', attempts = 0, ready_at = now(), changed_at = now()
                where mill.task.state in ('done', 'discarded');
    end loop;
end
$$;
comment on function mill.queue_tagging is
    'Makes, once a CLIP model''s task is done, a task for each of its taggers that was not computed in the same pass.';

create function mill.withdraw_tags(t mill.task, why text) returns void
language plpgsql
as $$
declare
    x mill.task;
    s mill.submission;
begin
    -- the holder of a lease has read the embeddings: its tags must not pass for tags of the next ones
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
    'Rejects and withdraws tags of embeddings that are being withdrawn, and ends the leases of the tasks that make such tags.';

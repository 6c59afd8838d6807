-- Scoring: thumbnails and texts out, similarities, embeddings and tags in.

create function mill.to_score(t mill.task) returns table (n integer)
language sql stable
as $$
    select d.n
      from mill.thumbnailed(t) d
     where (d.n, d.of_attempt) not in (
           select s.n, s.attempt from mill.score s
            where s.batch_id = t.batch_id and s.model_id = t.model_id
              and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id))
       and d.n not in (
           select i.n
             from mill.submission s
             join inbox.score i on i.lease_id = s.lease_id and i.part = s.part
            where s.task_id = t.task_id and s.state = 'received')
$$;
comment on function mill.to_score is
    'Positions of a clip model''s score task that no received or accepted submission covers yet.';

-- A removed pair is in no count of a later claim; a scorer that had claimed it before reads as many rows as it was promised.
create function mill.left_to_score(t mill.task, p_claimed_at timestamptz default 'infinity') returns setof integer
language plpgsql stable
as $$
declare
    removed constant integer[] := array(select r.n from mill.removed_positions(t.batch_id, p_claimed_at) r);
begin
    if (select kind from mill.model where model_id = t.model_id) = 'clip' then
        return query select s.n from mill.to_score(t) s where s.n <> all (removed);
    else
        return query select s.n from mill.to_tag(t) s where s.n <> all (removed);
    end if;
end
$$;
comment on function mill.left_to_score is
    'Positions of a score task, of a model''s or a tagger''s, that no received or accepted submission covers yet, and no removal that was '
    'found before p_claimed_at.';

create function api.thumbnails_v1(p_lease_id bigint, p_from integer, p_to integer)
returns table (n integer, text text, image bytea, dhash bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, 'score');
    claimed_at constant timestamptz := (select l.claimed_at from mill.lease l where l.lease_id = p_lease_id);
    in_slot smallint;
    again boolean;
begin
    select d.slot, d.for_model_id is not null into in_slot, again
      from mill.task d where d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt;
    if in_slot is null then
        return;
    end if;
    -- the slot as a literal: the plan opens one partition of the ring, not all
    return query execute format(
        'select d.n, p.text, h.image, d.dhash'
        '  from mill.left_to_score($1, $6) s'
        '  join mill.pair p on p.batch_id = $2 and p.n = s'
        '  %s'
        '  join mill.thumbnail h on h.slot = %s and h.batch_id = $2 and h.attempt = $3'
        '   and h.n = s and h.submission_id = %s.submission_id'
        ' where s >= $4 and s < $5'
        ' order by d.n',
        -- of a backfill the hash is the first download's: the new thumbnail must show that image
        case when again then 'join mill.refetch r on r.batch_id = $2 and r.n = s and r.attempt = $3'
                             '  join mill.download d on d.batch_id = $2 and d.n = s and d.attempt = r.of_attempt'
             else 'join mill.download d on d.batch_id = $2 and d.n = s and d.attempt = $3' end,
        in_slot, case when again then 'r' else 'd' end)
        using t, t.batch_id, t.attempt, p_from, p_to, claimed_at;
end
$$;
comment on function api.thumbnails_v1 is
    'Text, thumbnail and the dHash of its image, of positions from p_from up to, not including, p_to. Meant for COPY (SELECT …) TO '
    'STDOUT. A scorer that gets fewer rows in all than its claim counted must fail the task: TRUNCATE is not MVCC-safe, an old '
    'snapshot reads none.';

-- For a CLIP model's task: scores, and with them tags of any of its taggers. For a tagger's own task: tags alone.
create function api.submit_score_v1(p_lease_id bigint, p_part integer, p_scores integer, p_tags integer) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, 'score');
    id bigint := mill.earlier_submission(p_lease_id, p_part);
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
    id := mill.record_submission(t, p_lease_id, p_part, case when m.kind = 'clip' then p_scores else p_tags end);
    update mill.submission set tag_count = p_tags where submission_id = id and p_tags > 0;
    return id;
end
$$;
comment on function api.submit_score_v1 is
    'Hands over the rows copied into inbox.score and inbox.tag under this lease and part. Idempotent by (lease, part).';

create function mill.check_scores(t mill.task, m mill.model, p_lease_id bigint, p_part integer, p_scores integer) returns void
language plpgsql
as $$
begin
    if p_scores = 0 then
        return;
    end if;
    -- an array, and not a join, which was planned as loops: 57 to 375 ms for 500 rows, and 5 ms so
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
comment on function mill.check_scores is 'Refuses malformed scores of a submission.';

-- Two tasks may score one download: two backfills that fetched its image again. Of two scores that count a release would have
-- the pair twice, so that the first that is accepted stays.
create function mill.refuse_scored(s mill.submission, t mill.task, sender name) returns void
language plpgsql
as $$
begin
    if not exists (select from mill.task x
                    where x.batch_id = t.batch_id and x.kind = 'score' and x.model_id = t.model_id and x.task_id <> t.task_id) then
        return;
    end if;
    perform from mill.batch where batch_id = t.batch_id for no key update;  -- two stewards: one after the other
    if exists (select i.n, coalesce(r.of_attempt, t.attempt)
                 from inbox.score i
                 left join mill.refetch r on r.batch_id = t.batch_id and r.n = i.n and r.attempt = t.attempt
                where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
               intersect
               select c.n, c.attempt from mill.score c
                where c.batch_id = t.batch_id and c.model_id = t.model_id
                  and not exists (select from mill.withdrawn w where w.submission_id = c.submission_id)) then
        perform mill.refuse('23000', 'another task has scored one of these positions meanwhile');
    end if;
end
$$;
comment on function mill.refuse_scored is 'Rejects a submission of which a position has a score of the same download that counts.';

create function mill.score_accept(s mill.submission, t mill.task) returns void
language plpgsql
as $$
declare
    m mill.model;
    sender name := (select login from mill.worker where worker_id = s.worker_id);
    accepted bigint;
begin
    select * into m from mill.model where model_id = t.model_id;
    perform mill.hold_removals();
    if m.kind = 'clip' then
        perform mill.refuse_scored(s, t, sender);
        -- one snapshot of all rows: a sender may go on copying under a part that it has submitted
        with sent as materialized (
            select i.*, coalesce(r.of_attempt, t.attempt) as of_attempt
              from inbox.score i
              left join mill.refetch r on r.batch_id = t.batch_id and r.n = i.n and r.attempt = t.attempt
             where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender
        ), scored as (
            insert into mill.score (batch_id, n, attempt, model_id, outcome, similarity, submission_id, text_tokens)
            select t.batch_id, n, of_attempt, t.model_id, outcome, similarity, s.submission_id, text_tokens from sent
        ), embedded as (
            insert into mill.embedding (batch_id, n, attempt, model_id, image, text, submission_id)
            select t.batch_id, n, of_attempt, t.model_id, image, text, s.submission_id from sent
             where outcome = 0 and n not in (select r.n from mill.removed_positions(t.batch_id) r)
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
comment on function mill.score_accept is 'Moves a score submission from its inboxes into score, embedding and tag.';
create function mill.queue_scoring(p_batch_id bigint, p_attempt smallint, p_model_id integer) returns void
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, model_id)
    select 'score', p_batch_id, p_attempt, p_model_id
     where exists (
         select from mill.download d
          where d.batch_id = p_batch_id and d.attempt = p_attempt and d.outcome = 0
            and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id))
        or exists (
         select from mill.refetch r
          where r.batch_id = p_batch_id and r.attempt = p_attempt and r.of_attempt is not null
            and not exists (select from mill.withdrawn w where w.submission_id = r.submission_id)
            and not exists (select from mill.score s
                             where s.batch_id = r.batch_id and s.n = r.n and s.attempt = r.of_attempt and s.model_id = p_model_id
                               and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)))
    on conflict do nothing
$$;
comment on function mill.queue_scoring is 'Makes the score task of a batch''s attempt for a model, if there is a thumbnail to score.';

create function mill.score_left(t mill.task) returns bigint
language sql stable
as $$
    select count(*) from mill.left_to_score(t)
$$;
comment on function mill.score_left is 'How many positions of a score task no received or accepted submission covers.';

create function mill.score_payload(t mill.task, p_lease_id bigint) returns jsonb
language sql
as $$
    select jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt, 'count', mill.score_left(t))
$$;
comment on function mill.score_payload is 'Batch, attempt and number of rows to read, for the worker.';

create function mill.score_reject(s mill.submission, t mill.task) returns void
language sql
as $$
    delete from inbox.score where lease_id = s.lease_id and part = s.part;
    delete from inbox.tag where lease_id = s.lease_id and part = s.part;
$$;
comment on function mill.score_reject is 'Deletes a submission''s rows in the inboxes.';

create function mill.score_done(t mill.task) returns void
language plpgsql
as $$
begin
    perform mill.queue_tagging(t);
end
$$;
comment on function mill.score_done is 'Queues the taggers that were not computed in the model''s pass.';

create function mill.score_withdraw(s mill.submission, t mill.task, why text) returns void
language plpgsql
as $$
begin
    perform mill.redo_task(t, why);
    perform mill.withdraw_tags(t, why);
end
$$;
comment on function mill.score_withdraw is 'Queues the withdrawn positions for scoring again; tags of their embeddings are withdrawn, too.';

select mill.allow('score', 'api.thumbnails_v1', 'api.embeddings_v1', 'api.taggers_v1', 'api.weights_v1', 'api.submit_score_v1', 'api.complete_v1');
select mill.allow_copy('score', 'inbox.score', 'lease_id, part, n, outcome, similarity, image, text, text_tokens');
select mill.allow_copy('score', 'inbox.tag', 'lease_id, part, model_id, n, label, value, text');

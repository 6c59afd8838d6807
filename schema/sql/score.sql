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

create function api.thumbnails_v1(p_lease_id bigint, p_from integer, p_to integer)
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

create function api.submit_score_v1(p_lease_id bigint, p_part integer, p_rows integer) returns bigint
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

create function mill.accept_score(s mill.submission, t mill.task) returns void
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

-- Acceptance: the only place where anything is counted.

create function mill.queue_scoring(p_batch_id bigint, p_attempt smallint, p_model_id integer) returns void
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, model_id)
    select 'score', p_batch_id, p_attempt, p_model_id
     where exists (
         select from mill.download d
          where d.batch_id = p_batch_id and d.attempt = p_attempt and d.outcome = 0
            and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id))
    on conflict do nothing
$$;
comment on function mill.queue_scoring is 'Makes the score task of a batch''s attempt for a model, if there is a thumbnail to score.';

-- A submitted task is done once nothing of it awaits acceptance; if a part was rejected it goes back.
create function mill.settle(p_task_id bigint) returns void
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
comment on function mill.settle is 'Ends a submitted task whose submissions are all decided, and makes what follows from it.';

create function mill.reject(s mill.submission, why text) returns void
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
comment on function mill.reject is 'Throws a received submission away; its positions are asked for again.';

-- p_unknown: 16 bytes each, of the extraction p_submission_id, by a filter that was in step at p_merge_number. It is
-- used only where that is the next submission and no merge came between: else every key is looked up.
create function api.accept_next_v2(
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

create function api.accept_next_v1(out submission_id bigint, out kind text, out row_count integer, out rejected_because text)
returns setof record
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select a.submission_id, a.kind, a.row_count, a.rejected_because from api.accept_next_v2(null, null, null, false) a
$$;
comment on function api.accept_next_v1 is 'accept_next_v2 without a filter.';

-- What an accepted submission gave no longer counts, and is queued again.
create function mill.withdraw(p_submission_id bigint, why text) returns void
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
comment on function mill.withdraw is
    'Withdraws an accepted submission: nothing it gave counts any more, and its task is done again '
    '(a download as a new attempt at its positions).';

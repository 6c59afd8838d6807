-- Acceptance: the only place where anything is counted.

-- A submitted task is done once all its parts are decided; where one was rejected it goes back to the queue.
create function mill.finish_task(p_task_id bigint, why text default 'a part of what was submitted was rejected') returns void
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
    if mill.hook_left(t) > 0 then
        perform mill.requeue(p_task_id, why, true);
        return;
    end if;
    update mill.task set state = 'done', reason = null, changed_at = now() where task_id = p_task_id;
    perform mill.hook_done(t);
end
$$;
comment on function mill.finish_task is 'Ends a submitted task whose submissions are all decided, and makes the tasks that follow from it.';

create function api.complete_v1(p_lease_id bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, null);
    missing constant bigint := mill.hook_left(t) + mill.gold_questions_left(p_lease_id);  -- one sum: two numbers would tell gold questions from URLs
begin
    if missing > 0 then
        perform mill.refuse('PM005', format('task %s is not complete: %s positions were not submitted', t.task_id, missing));
    end if;
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    perform mill.finish_task(t.task_id);
end
$$;
comment on function api.complete_v1 is 'Ends the lease of a task whose positions were all submitted; refused otherwise.';

create function mill.reject(s mill.submission, why text) returns void
language plpgsql
as $$
declare
    t mill.task;
begin
    update mill.submission set state = 'rejected', reason = mill.plain(left(why, 1000)), decided_at = now()
     where submission_id = s.submission_id;
    select * into t from mill.task where task_id = s.task_id;
    perform mill.hook_reject(s, t);
    perform mill.finish_task(s.task_id, why);
end
$$;
comment on function mill.reject is 'Deletes the rows of a received submission; its positions are asked for again.';

create function mill.next_submission() returns mill.submission
language plpgsql
as $$
declare
    s mill.submission;
begin
    -- lock order of every function: task before submission. A task that its holder keeps locked is
    -- passed over, or one open transaction would stop the acceptance of everybody's work
    select x.* into s
      from mill.submission x join mill.task y using (task_id)
     where x.state = 'received' order by x.submission_id limit 1
       for update of y skip locked;
    if found then
        select * into s from mill.submission x where x.submission_id = s.submission_id for update;
    end if;
    return s;
end
$$;
comment on function mill.next_submission is 'Locks the oldest received submission, after its task, and returns it; null where there is none.';

create function mill.record_acceptance(s mill.submission, t mill.task, counts jsonb) returns void
language plpgsql
as $$
begin
    update mill.submission x set state = 'accepted', decided_at = now() where x.submission_id = s.submission_id;
    if t.is_replica then
        -- its rows are kept for the comparison, and count for no pair
        insert into mill.withdrawn (submission_id, reason) values (s.submission_id, 'a replica');
    end if;
    perform mill.finish_task(t.task_id);
    perform mill.count_accepted(s, t);
    perform mill.count_day(s, t, counts);
end
$$;
comment on function mill.record_acceptance is 'Marks a submission accepted whose rows were made, ends its task, and counts it on the day.';

create function mill.accept(s mill.submission) returns text
language plpgsql
as $$
declare
    t mill.task;
    counts jsonb;
begin
    if s.state <> 'received' then
        return null;
    end if;
    select * into t from mill.task where task_id = s.task_id;
    begin
        counts := mill.submitted_counts(s, t);
        perform mill.hook_accept(s, t);
        perform mill.record_acceptance(s, t, counts);
        return null;
    exception when data_exception or integrity_constraint_violation then
        perform mill.reject(s, sqlerrm);
        return sqlerrm;
    end;
end
$$;
comment on function mill.accept is 'Accepts a submission that next_submission locked, or rejects it and returns the reason.';

create function api.accept_next_v1(out submission_id bigint, out kind text, out row_count integer, out rejected_because text)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s constant mill.submission := mill.next_submission();
begin
    if s.submission_id is null then
        return;
    end if;
    submission_id := s.submission_id;
    kind := (select t.kind from mill.task t where t.task_id = s.task_id);
    row_count := s.row_count;
    rejected_because := mill.accept(s);
    return next;
end
$$;
comment on function api.accept_next_v1 is
    'Accepts the oldest received submission in one transaction: expands it into rows, credits it, ends its task. '
    'No row when nothing waits. A submission that a constraint refuses is rejected, with the reason.';

-- The rows of a withdrawn submission stay and no longer count; its work is queued again.
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
    perform mill.require_pairs(p_submission_id);
    if mill.detached(t.batch_id) then
        return;  -- mill.catch_up does the rest, once the rows are back
    end if;
    perform mill.hook_withdraw(s, t, why);
end
$$;
comment on function mill.withdraw is
    'Withdraws an accepted submission: its rows no longer count, and its work is queued again.';

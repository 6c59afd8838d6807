-- Items: subjects of tasks that are neither WAT files nor batches. A kind of items defines only the hooks that differ
-- from the ones here (see hooks.sql).

create function mill.add_items(p_kind text, p_specs jsonb[]) returns integer
language plpgsql
as $$
declare
    added integer;
begin
    if (select subject from mill.task_kind where name = p_kind) is distinct from 'item' then
        perform mill.refuse('PM003', format('%s is no kind of work whose tasks are about items', p_kind));
    end if;
    with new as (
        insert into mill.item (kind, spec, digest)
        select p_kind, spec, sha256(convert_to(spec::text, 'UTF8')) from unnest(p_specs) with ordinality u (spec, place) order by place
        on conflict (kind, digest) do nothing
        returning item_id
    )
    insert into mill.task (kind, item_id) select p_kind, item_id from new order by item_id;
    get diagnostics added = row_count;
    return added;
end
$$;
comment on function mill.add_items is 'Adds items of a kind, and their tasks; those known already are left alone. Returns how many were new.';

create function mill.whole_submission(t mill.task) returns bigint
language sql stable
as $$
    select max(s.submission_id) from mill.submission s
     where s.task_id = t.task_id and s.state in ('received', 'accepted')
       and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
$$;
comment on function mill.whole_submission is 'The one submission of a task that is handed over whole, received or accepted and not withdrawn; null where there is none.';

create function api.submit_item_v1(p_lease_id bigint, p_result jsonb) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, null);
    -- an earlier holder's, too: it may have died between its submission and complete_v1
    id bigint := mill.whole_submission(t);
begin
    if id is not null then
        return id;
    end if;
    if t.item_id is null or p_result is null or pg_column_size(p_result) > 1000000 then
        perform mill.refuse('PM003', 'a result must be of an item''s task, and at most 1 MB');
    end if;
    id := mill.record_submission(t, p_lease_id, 0, 1);
    insert into mill.submission_item (submission_id, result) values (id, p_result);
    return id;
end
$$;
comment on function api.submit_item_v1 is
    'Hands over the result of an item''s task; where the task has one already, of any worker, that one stays. Idempotent.';

create function mill.item_payload(t mill.task, p_lease_id bigint) returns jsonb
language sql
as $$
    select jsonb_build_object('item_id', i.item_id, 'spec', i.spec) from mill.item i where i.item_id = t.item_id
$$;
comment on function mill.item_payload is 'The item and its spec, for the worker.';

create function mill.item_left(t mill.task) returns bigint
language sql stable
as $$
    select (mill.whole_submission(t) is null)::integer::bigint
$$;
comment on function mill.item_left is '1 where no result was submitted, else 0.';

create function mill.item_accept(s mill.submission, t mill.task) returns void
language sql
as $$
    insert into mill.item_result (item_id, submission_id, result)
    select t.item_id, submission_id, result from mill.submission_item where submission_id = s.submission_id;
    delete from mill.submission_item where submission_id = s.submission_id;
$$;
comment on function mill.item_accept is 'Keeps a submission''s result.';

create function mill.item_reject(s mill.submission, t mill.task) returns void
language sql
as $$
    delete from mill.submission_item where submission_id = s.submission_id
$$;
comment on function mill.item_reject is 'Deletes a submission''s result.';

create function mill.item_withdraw(s mill.submission, t mill.task, why text) returns void
language sql
as $$
    select mill.redo_task(t, why)
$$;
comment on function mill.item_withdraw is 'Queues an item again whose result was withdrawn.';

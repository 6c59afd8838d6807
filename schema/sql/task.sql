-- An admin's hand in the queue: tasks discarded, and queued again.

create function mill.discard_task(p_task_id bigint, why text) returns boolean
language plpgsql
as $$
begin
    perform from mill.task where task_id = p_task_id for update;
    update mill.task set state = 'discarded', reason = why, changed_at = now()
     where task_id = p_task_id and state in ('ready', 'leased');
    if not found then
        return false;
    end if;
    perform mill.end_lease(lease_id, 'expired') from mill.lease where task_id = p_task_id and ended_at is null;
    return true;
end
$$;
comment on function mill.discard_task is 'Takes a ready or leased task out of the queue; its holder''s next call is refused.';

-- A discarded task whose thumbnails are gone cannot go on where it stopped: its missing positions are downloaded anew.
create function mill.retry_task(p_task_id bigint) returns text
language plpgsql
as $$
declare
    t mill.task;
    d mill.task;
    anew integer[];
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if not found or t.state <> 'discarded' or t.is_replica then  -- the replication of a discarded replica is void
        return null;
    end if;
    select * into d from mill.task x where x.kind = 'download' and x.batch_id = t.batch_id and x.attempt = t.attempt;
    if t.batch_id is null or d.slot is not null
       or not exists (select from mill.task_kind k where k.name = t.kind and (k.reads_thumbnails or k.writes_thumbnails))
       or t.kind = 'score' and (select m.kind from mill.model m where m.model_id = t.model_id) in ('head', 'zero-shot')
       or t.kind = 'download' and not exists (select from mill.download x join mill.pair p using (batch_id, n)
                                               where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id <> p.submission_id) then
        update mill.task set state = 'ready', attempts = 0, excused = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.left_to_score(t) n where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))
               and p.n not in (select r.n from mill.refused_by_page(t.batch_id) r)) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    if t.kind = 'score' then
        perform mill.queue_tagging(t);  -- of the positions that were scored
    end if;
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), anew where anew is not null;
    return 'download';
end
$$;
comment on function mill.retry_task is
    'Queues a discarded task again. Returns the kind of work that was queued, or null where the task is not discarded.';

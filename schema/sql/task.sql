-- An admin's hand in the queue: tasks parked, discarded, and queued again.
-- A task is parked for the moment: nothing waits for it, no fault is shown, and its attempts stay. A replica is not: what it checks would wait.

create function mill.discard_task(p_task_id bigint, why text) returns boolean
language plpgsql
as $$
begin
    perform from mill.task where task_id = p_task_id for update;
    update mill.task set state = 'discarded', reason = mill.plain(why), changed_at = now()
     where task_id = p_task_id and state in ('ready', 'leased', 'parked');
    if not found then
        return false;
    end if;
    perform mill.end_lease(lease_id, 'expired') from mill.lease where task_id = p_task_id and ended_at is null;
    return true;
end
$$;
comment on function mill.discard_task is 'Gives a ready, leased or parked task up; its holder''s next call is refused.';

create function mill.park_task(p_task_id bigint, why text) returns boolean
language plpgsql
as $$
begin
    perform from mill.task where task_id = p_task_id for update;
    update mill.task set state = 'parked', reason = mill.plain(why), changed_at = now()
     where task_id = p_task_id and state in ('ready', 'leased') and not is_replica;
    if not found then
        return false;
    end if;
    perform mill.end_lease(lease_id, 'expired') from mill.lease where task_id = p_task_id and ended_at is null;
    return true;
end
$$;
comment on function mill.park_task is
    'Takes a ready or leased task, but no replica, out of the queue until retry_task brings it back; its holder''s next call is refused.';

-- A discarded task whose thumbnails are gone cannot go on where it stopped: its missing positions are downloaded anew.
create function mill.retry_task(p_task_id bigint) returns text
language plpgsql
as $$
declare
    t mill.task;
    d mill.task;
    anew integer[];
    had integer[];
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if not found or t.state not in ('discarded', 'parked') or t.is_replica then  -- the replication of a discarded replica is void
        return null;
    end if;
    if exists (select from mill.model m where m.model_id in (t.model_id, t.for_model_id) and m.retired_at is not null) then
        perform mill.refuse('PM003', format('task %s is of a model that was retired: `pairmill model add` with the same weights queues it again', p_task_id));
    end if;
    select * into d from mill.task x where x.kind = 'download' and x.batch_id = t.batch_id and x.attempt = t.attempt;
    if t.batch_id is null or d.slot is not null
       or not exists (select from mill.task_kind k where k.name = t.kind and (k.reads_thumbnails or k.writes_thumbnails))
       or t.kind = 'score' and (select m.kind from mill.model m where m.model_id = t.model_id) in ('head', 'zero-shot')
       or t.kind = 'download' and not exists (select from mill.download x join mill.pair p using (batch_id, n)
                                               where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id <> p.submission_id)
          and not exists (select from mill.refetch r where r.batch_id = t.batch_id and r.attempt = t.attempt) then
        update mill.task
           set state = 'ready', ready_at = now(), changed_at = now(),
               attempts = case t.state when 'parked' then attempts else 0 end, excused = case t.state when 'parked' then excused else 0 end
         where task_id = p_task_id;
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
    -- an image that was had once is not lost where its host is down today: a backfill fetches it for its thumbnail alone
    had := array(select c.n from mill.current_download c where c.batch_id = t.batch_id and c.n = any (anew) and c.outcome = 0);
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), array_agg(n order by n) from unnest(anew) n where n <> all (had) having count(*) > 0;
    insert into mill.task (kind, batch_id, attempt, positions, for_model_id)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), array_agg(n order by n), m.model_id
      from unnest(had) n
      join mill.model m on m.model_id = coalesce(t.model_id, t.for_model_id, (select min(a.model_id) from mill.model a where a.kind = 'clip' and a.retired_at is null))
     group by m.model_id;
    return 'download';
end
$$;
comment on function mill.retry_task is
    'Queues a discarded or parked task again. Returns the kind of work that was queued, or null where the task is neither.';

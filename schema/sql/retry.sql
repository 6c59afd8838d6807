-- Retries: discarded tasks, URLs whose download failed, downloads that were withdrawn.

create function mill.withdraw_downloads(p_submissions bigint[], why text) returns integer
language plpgsql
as $$
declare
    queued integer;
begin
    perform from mill.task x
      where x.task_id in (select y.task_id from mill.submission y where y.submission_id = any (p_submissions))
      order by x.task_id for update;
    insert into mill.withdrawn (submission_id, reason)
    select x, why from unnest(p_submissions) x
    on conflict do nothing;
    with gone as (
        select y.batch_id, y.attempt, x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.submission_id = any (p_submissions) and not y.is_replica
    ), again as (
        select g.batch_id, array_agg(distinct d.n) as positions
          from gone g
          join mill.download d on d.batch_id = g.batch_id and d.attempt = g.attempt and d.submission_id = g.submission_id
         where not exists (select from mill.current_download c where c.batch_id = d.batch_id and c.n = d.n)
           and not exists (select from mill.task o where o.kind = 'download' and o.batch_id = d.batch_id and o.attempt > g.attempt
                              and o.state <> 'done' and not o.is_replica and (o.positions is null or d.n = any (o.positions))
                              -- that task asks no more for a position that it had a row of, though the row was withdrawn
                              and not exists (select from mill.download e
                                               where e.batch_id = d.batch_id and e.n = d.n and e.attempt = o.attempt))
         group by g.batch_id
    )
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', a.batch_id, mill.next_attempt(a.batch_id), a.positions
      from again a order by a.batch_id;
    get diagnostics queued = row_count;
    return queued;
end
$$;
comment on function mill.withdraw_downloads is
    'Withdraws accepted download submissions and queues their URLs again, one task a batch and not one a submission. Returns the tasks queued.';

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

-- Later, and not in a loop: a second attempt in the same minute meets the same trouble.
create function mill.retry_outcomes(
    p_outcomes text[], p_first_batch bigint, p_last_batch bigint, p_at_once boolean,
    out batches bigint, out urls bigint, out busy bigint
)
language plpgsql
as $$
#variable_conflict use_column
begin
    with found as (
        select d.batch_id, array_agg(d.n order by d.n) as positions
          from mill.current_download d
          join mill.outcome o on o.code = d.outcome
          join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
         where d.batch_id between p_first_batch and p_last_batch
           and case when p_outcomes is null then o.retry else o.name = any (p_outcomes) end
           -- downloads by replicas, and withdrawn ones, are no attempts at the URL
           and (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removal r where r.md5 = p.url_key)
           and d.submission_id <> p.submission_id  -- its page opts out
         group by d.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ least(t.attempts - 1, 20)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, count(*) filter (where not x.is_replica) as attempts,
                     max(x.changed_at) filter (where not x.is_replica) as ended_at, bool_or(x.state <> 'done' and not x.is_replica) as busy
                from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from (select p.*, mill.next_attempt(p.batch_id) as next from planned p where not p.busy order by p.batch_id) q
         where next = attempt + 1  -- else another retry or a replica came first
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where planned.busy)
      into batches, urls, busy
      from queued;
end
$$;
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts. '
    'busy: batches left out, since a download of theirs is not done.';

-- Not by the workers that found a link dead, nor from their networks.
create function mill.retry_doubted(p_first_batch bigint, p_last_batch bigint, out batches bigint, out urls bigint, out busy bigint)
language plpgsql
as $$
begin
    with found as (
        select l.batch_id, array_agg(l.n order by l.n) as positions,
               (select array_agg(distinct s.worker_id)
                  from mill.download x join mill.submission s using (submission_id)
                 where x.batch_id = l.batch_id and x.n = any (array_agg(l.n))) as finders
          from report.dead_link l
         where l.batch_id between p_first_batch and p_last_batch and not l.believed
           and (select count(*) from mill.download x where x.batch_id = l.batch_id and x.n = l.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
           and not exists (select from mill.removal r join mill.pair p on p.url_key = r.md5 where p.batch_id = l.batch_id and p.n = l.n)
         group by l.batch_id
    ), planned as (
        select f.*, exists (select from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id
                               and x.state <> 'done' and not x.is_replica) as is_busy
          from found f
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, avoid_workers)
        select 'download', batch_id, mill.next_attempt(batch_id), positions, finders
          from planned where not is_busy
         order by batch_id
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where is_busy)
      into batches, urls, busy
      from queued;
end
$$;
comment on function mill.retry_doubted is
    'Queues the links that only one network has found dead, for workers of another. busy: batches left out, since a download of theirs is not done.';

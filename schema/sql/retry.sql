-- Retries: URLs whose download failed, downloads that were withdrawn.

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
                              and o.state <> 'done' and not o.is_replica and o.for_model_id is null and (o.positions is null or d.n = any (o.positions))
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

-- Later, and not in a loop: a second attempt in the same minute meets the same trouble.
create function mill.retry_outcomes(
    p_outcomes text[], p_first_batch bigint, p_last_batch bigint, p_at_once boolean,
    out batches bigint, out urls bigint, out busy bigint, out spent bigint, out outcomes jsonb, out first_at timestamptz, out last_at timestamptz
)
language plpgsql
as $$
#variable_conflict use_column
begin
    with failed as materialized (
        select d.batch_id, d.n, o.name as outcome,
               -- downloads by replicas, and withdrawn ones, are no attempts at the URL
               (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               >= (select url_attempts from mill.setting) as is_spent
          from mill.current_download d
          join mill.outcome o on o.code = d.outcome
          join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
         where d.batch_id between p_first_batch and p_last_batch
           and case when p_outcomes is null then o.retry else o.name = any (p_outcomes) end
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removed_pair r where r.batch_id = d.batch_id and r.n = d.n)
           and d.submission_id <> p.submission_id  -- its page opts out
    ), found as (
        select f.batch_id, array_agg(f.n order by f.n) as positions from failed f where not f.is_spent group by f.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ least(t.attempts - 1, 20)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, count(*) filter (where x.is_attempt) as attempts,
                     max(x.changed_at) filter (where x.is_attempt) as ended_at, bool_or(x.state <> 'done' and x.is_attempt) as busy
                from (select y.*, not y.is_replica and y.for_model_id is null as is_attempt from mill.task y
                       where y.kind = 'download' and y.batch_id = f.batch_id) x) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from (select p.*, mill.next_attempt(p.batch_id) as next from planned p where not p.busy order by p.batch_id) q
         where next = attempt + 1  -- else another retry or a replica came first
        returning batch_id, positions, ready_at
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), min(ready_at), max(ready_at),
           (select count(*) from planned where planned.busy), (select count(*) from failed where is_spent),
           (select coalesce(jsonb_object_agg(c.outcome, c.urls order by c.urls desc), '{}')
              from (select f.outcome, count(*) as urls from failed f join queued q using (batch_id) where not f.is_spent group by f.outcome) c)
      into batches, urls, first_at, last_at, busy, spent, outcomes
      from queued;
end
$$;
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts, which may be claimed '
    'between first_at and last_at on. outcomes: how they had ended. busy: batches left out, since a download of theirs is not done. spent: URLs left '
    'out, which had url_attempts already.';

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
           and not exists (select from mill.removed_pair r where r.batch_id = l.batch_id and r.n = l.n)
         group by l.batch_id
    ), planned as (
        select f.*, exists (select from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id
                               and x.state <> 'done' and not x.is_replica and x.for_model_id is null) as is_busy
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

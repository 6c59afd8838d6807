-- Backfills: pairs that were downloaded before a model was there. Their thumbnails are gone, so their images are fetched
-- again, by download tasks with for_model_id. Such a fetch is no new attempt at the pair: a host that is down today has lost
-- no image that was had before, and a score belongs to the image that it was made of. So the download that counted goes on to
-- count, with the scores, embeddings and tags that it has; and the new thumbnail is scored in its name where it shows the
-- same image. Only a site's new opt-out counts.

-- The range stands at every table, so that no partition is read in vain. enable_nestloop: five probes of indexes a pair took 45 s
-- for a million pairs, once there were statistics; hashes take a quarter of that.
create function mill.to_backfill(p_model_id integer, p_first_batch bigint, p_last_batch bigint)
returns table (batch_id bigint, n integer, attempt smallint, bytes integer, at_hand boolean, in_vain boolean)
language plpgsql stable
set enable_nestloop = off
as $$
#variable_conflict use_column
declare
    is_clip constant boolean := (select kind = 'clip' from mill.model where model_id = p_model_id);
begin
    return query
    with downloaded as (  -- as mill.current_download
        select distinct on (d.batch_id, d.n) d.batch_id, d.n, d.attempt, d.outcome, d.bytes
          from mill.download d
         where d.batch_id between p_first_batch and p_last_batch
           and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
         order by d.batch_id, d.n, d.attempt desc
    ), seen as (
        select s.batch_id, s.n, s.attempt, s.submission_id from mill.score s
         where is_clip and s.batch_id between p_first_batch and p_last_batch and s.model_id = p_model_id
        union all
        select g.batch_id, g.n, g.attempt, g.submission_id from mill.tag g
         where not is_clip and g.batch_id between p_first_batch and p_last_batch and g.model_id = p_model_id
    ), seen_and_counted as (
        select s.batch_id, s.n, s.attempt from seen s where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
    ), tried as (
        select r.batch_id, r.n
          from mill.refetch r
          join mill.outcome o on o.code = r.outcome
         where r.batch_id between p_first_batch and p_last_batch
           and not exists (select from mill.withdrawn w where w.submission_id = r.submission_id)
         group by r.batch_id, r.n
        having bool_or(r.of_attempt is null and not o.retry)  -- another image, or none that ever comes
            or count(*) filter (where r.of_attempt is null) >= (select url_attempts from mill.setting)
    )
    select d.batch_id, d.n, d.attempt, d.bytes, k.slot is not null, t.n is not null
      from downloaded d
      join mill.pair p on p.batch_id = d.batch_id and p.n = d.n and p.batch_id between p_first_batch and p_last_batch
      join mill.task k on k.kind = 'download' and k.batch_id = d.batch_id and k.attempt = d.attempt and k.batch_id between p_first_batch and p_last_batch
      left join tried t on t.batch_id = d.batch_id and t.n = d.n
     where d.outcome = 0
       and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
       and not exists (select from mill.removed_pair r
                        where r.batch_id = d.batch_id and r.n = d.n and r.batch_id between p_first_batch and p_last_batch)
       and not exists (select from seen_and_counted s where s.batch_id = d.batch_id and s.n = d.n and s.attempt = d.attempt);
end
$$;
comment on function mill.to_backfill is
    'Downloaded pairs that a CLIP model has not scored, or a tagger of pixels not tagged. at_hand: their thumbnails are still there. '
    'in_vain: fetched again before, and there was no such image, or url_attempts times no answer.';

create function mill.backfill_model(
    p_model_id integer, p_first_batch bigint, p_last_batch bigint,
    out batches bigint, out urls bigint, out bytes bigint, out score_tasks bigint, out in_vain bigint, out busy bigint
)
language plpgsql
as $$
#variable_conflict use_column
declare
    m mill.model;
begin
    select * into m from mill.model where model_id = p_model_id for no key update;
    batches := 0;
    urls := 0;
    bytes := 0;
    in_vain := 0;
    busy := 0;
    if m.kind in ('head', 'zero-shot') then
        score_tasks := mill.queue_tagger(m, p_first_batch, p_last_batch);
        return;
    end if;
    with found as materialized (
        select * from mill.to_backfill(p_model_id, p_first_batch, p_last_batch)
    ), planned as materialized (
        select f.batch_id, f.attempt, f.at_hand,
               count(*) filter (where not f.in_vain) as urls, sum(f.bytes) filter (where not f.in_vain) as bytes, count(*) filter (where f.in_vain) as in_vain,
               exists (select from mill.task x
                        where x.batch_id = f.batch_id and x.state in ('ready', 'leased', 'submitted', 'parked')
                          and (x.for_model_id is not null or x.kind = 'score' and x.model_id = p_model_id)) as busy
          from found f
         group by f.batch_id, f.attempt, f.at_hand
    ), again as (
        insert into mill.task (kind, batch_id, attempt, for_model_id)
        select 'download', b.batch_id, mill.next_attempt(b.batch_id), p_model_id
          from (select p.batch_id from planned p where not p.busy and not p.at_hand group by p.batch_id having sum(p.urls) > 0 order by p.batch_id) b
        returning batch_id
    ), at_once as (
        insert into mill.task (kind, batch_id, attempt, model_id)
        select 'score', p.batch_id, p.attempt, p_model_id from planned p where p.at_hand and not p.busy order by p.batch_id
        on conflict (batch_id, attempt, kind, model_id) where batch_id is not null
        -- done: its pairs were removed when it was scored, and the removal was taken back
        do update set state = 'ready', attempts = 0, excused = 0, ready_at = now(), changed_at = now() where mill.task.state in ('done', 'discarded')
        returning 1
    ), over as (  -- a new download stands in for a task that was given up and whose thumbnails are gone
        update mill.task x set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now()
         where x.kind = 'score' and x.model_id = p_model_id and x.state = 'discarded'
           and (x.batch_id, x.attempt) in (select p.batch_id, p.attempt from planned p where not p.at_hand and not p.busy and p.urls > 0)
    )
    select (select count(*) from again), (select count(*) from at_once), coalesce(sum(p.urls) filter (where not p.at_hand and not p.busy), 0),
           coalesce(sum(p.bytes) filter (where not p.at_hand and not p.busy), 0), coalesce(sum(p.in_vain) filter (where not p.at_hand), 0),
           count(distinct p.batch_id) filter (where p.busy)
      into batches, score_tasks, urls, bytes, in_vain, busy
      from planned p;
end
$$;
comment on function mill.backfill_model is
    'Queues what a model needs for pairs that were downloaded before it was there: for one that reads embeddings, score tasks; else new downloads '
    '(batches, urls, and bytes as they came the first time), and score tasks where the thumbnails are still there. in_vain: URLs left out, which '
    'gave no such image again. busy: batches left out, since a backfill of theirs, or their scoring by the model, is under way or parked.';

-- At the claim, and not when it is queued: an array of 10,000 positions a batch would be most of the queue.
create function mill.choose_backfill(t mill.task) returns integer[]
language plpgsql
as $$
declare
    chosen constant integer[] := array(select b.n from mill.to_backfill(t.for_model_id, t.batch_id, t.batch_id) b
                                        where not b.at_hand and not b.in_vain order by b.n);
begin
    update mill.task set positions = chosen where task_id = t.task_id;
    return chosen;
end
$$;
comment on function mill.choose_backfill is 'Chooses the positions of a backfill''s task, and returns them.';

create function mill.keep_refetches(s mill.submission, t mill.task) returns void
language plpgsql
as $$
begin
    insert into mill.refetch (batch_id, n, attempt, outcome, of_attempt, submission_id)
    select t.batch_id, r.n, t.attempt, r.outcome,
           case when r.outcome = 0 and (c.sha256 = r.sha256 or mill.look_alike(c.dhash, r.dhash)) then c.attempt end, s.submission_id
      from mill.submission_download sd
     cross join unnest(sd.positions, sd.outcome, sd.sha256, sd.dhash) as r (n, outcome, sha256, dhash)
      left join mill.current_download c on c.batch_id = t.batch_id and c.n = r.n and c.outcome = 0
     where sd.submission_id = s.submission_id and r.outcome <> 50;
end
$$;
comment on function mill.keep_refetches is
    'Keeps the outcomes of a backfill''s submission, but for opt-outs, and tells which images are those that were downloaded before.';

create function mill.queue_refetched(t mill.task) returns void
language plpgsql
as $$
declare
    x mill.task := t;
    m mill.model;
begin
    x.task_id := null;
    for m in select * from mill.model where kind in ('clip', 'pixels') and retired_at is null order by kind, model_id loop
        x.model_id := m.model_id;
        -- a tagger's model comes first, and makes the tagger's task if its pass does not
        continue when m.kind = 'pixels' and exists (select from mill.task b where b.kind = 'score' and b.batch_id = t.batch_id
                                                       and b.attempt = t.attempt and b.model_id = m.base_model_id);
        insert into mill.task (kind, batch_id, attempt, model_id)
        select 'score', t.batch_id, t.attempt, m.model_id where exists (select from mill.left_to_score(x))
        on conflict do nothing;
    end loop;
end
$$;
comment on function mill.queue_refetched is
    'Once a backfill''s download is done: queues its thumbnails for each model, and tagger of pixels, that has not scored their images.';

-- A view, and joined whole: asked for each pair, a million of them took seconds.
create view mill.scoring_to_come as
select x.batch_id, x.model_id, bool_or(x.attempt is null) as whole, array_agg(x.attempt) as attempts
  from (select batch_id, model_id, null::smallint as attempt from mill.task where kind = 'score' and state in ('ready', 'leased', 'submitted')
        union all
        select t.batch_id, m.model_id, case when t.for_model_id is null then t.attempt end
          from mill.task t cross join mill.model m
         where t.kind = 'download' and t.state in ('ready', 'leased', 'submitted') and not t.is_replica and m.kind = 'clip' and m.retired_at is null) x
 group by x.batch_id, x.model_id;
comment on view mill.scoring_to_come is
    'Batches with unfinished tasks that score them by a model, or lead to such: the whole batch, or the pairs of some download attempts.';
comment on column mill.scoring_to_come.batch_id is 'The batch';
comment on column mill.scoring_to_come.model_id is 'The CLIP model';
comment on column mill.scoring_to_come.whole is 'Whether pairs of any download attempt may be scored: a score task or a backfill is unfinished';
comment on column mill.scoring_to_come.attempts is 'The download attempts that are unfinished; null for a score task or a backfill';

-- Counters of the funnel: pairs by language, outcome of their download, and outcomes of their scores, by batch and summed.
-- docs/decisions/2026-11-27-status-from-counters.md
--
-- Exact by three rules. What a batch counts is defined once, by mill.funnel_of, over its rows. Whoever makes submissions count,
-- or no more, adds what that definition gives with them less what it gives without them. And that is done under the lock of the
-- batch's row of attempt 0, after the rows were written: so each change is measured on the rows of all that were added before it.
--
-- Lock order: tasks and submissions, mill.seen_url, mill.removal, mill.batch, then batch_count, by number. Nothing that a worker
-- calls takes the last one, so that no worker's open transaction holds up an acceptance.

-- p_sides: 1 is the state in which p_submissions count, -1 that without them, whose rows are subtracted.
-- enable_nestloop: of an array 10 elements are expected, and of a new partition one row: loops of 1,000 by 1,000 then.
-- plan_cache_mode: a plan made for this array estimates each of its 1,000 elements, at every call.
create function mill.funnel_of(p_batch_id bigint, p_positions integer[], p_submissions bigint[], p_sides smallint[])
returns table (model_id integer, attempt smallint, language text, outcome smallint, count bigint)
language plpgsql stable
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with pairs as materialized (
        select p.n, coalesce(p.language, 'nolang') as language, p.submission_id
          from mill.pair p where p.batch_id = p_batch_id and p.n = any (p_positions)
    ), downloads as materialized (
        select d.n, d.attempt, d.outcome, d.submission_id
          from mill.download d where d.batch_id = p_batch_id and d.n = any (p_positions)
    ), scores as materialized (
        select s.n, s.attempt, s.model_id, s.outcome, s.submission_id
          from mill.score s where s.batch_id = p_batch_id and s.n = any (p_positions)
    ), gone as materialized (
        select x.side, u.submission_id
          from (select p.submission_id from pairs p union select d.submission_id from downloads d union select s.submission_id from scores s) u
         cross join unnest(p_sides) x (side)
         where case when u.submission_id = any (p_submissions) then x.side = -1
                    else exists (select from mill.withdrawn w where w.submission_id = u.submission_id) end
    ), pair as materialized (
        select x.side, p.n, p.language from pairs p cross join unnest(p_sides) x (side)
         where (x.side, p.submission_id) not in (select g.side, g.submission_id from gone g)
    ), download as materialized (  -- as mill.current_download
        select distinct on (x.side, d.n) x.side, d.n, d.attempt, d.outcome from downloads d cross join unnest(p_sides) x (side)
         where (x.side, d.submission_id) not in (select g.side, g.submission_id from gone g)
         order by x.side, d.n, d.attempt desc
    ), score as (
        select distinct on (x.side, s.n, s.attempt, s.model_id) x.side, s.n, s.attempt, s.model_id, s.outcome
          from scores s cross join unnest(p_sides) x (side)
         where (x.side, s.submission_id) not in (select g.side, g.submission_id from gone g)
         order by x.side, s.n, s.attempt, s.model_id, s.submission_id desc
    )
    select x.model_id, x.attempt, x.language, x.outcome, sum(x.side)::bigint
      from (select 0 as model_id, 0::smallint as attempt, p.language, -1::smallint as outcome, p.side from pair p
            union all
            select 0, d.attempt, p.language, d.outcome, p.side from pair p join download d using (side, n)
            union all
            select s.model_id, s.attempt, p.language, s.outcome, p.side
              from pair p join download d using (side, n) join score s using (side, n, attempt) where d.outcome = 0) x
     group by x.model_id, x.attempt, x.language, x.outcome
    having sum(x.side) <> 0;
end
$$;
comment on function mill.funnel_of is
    'What these positions of a batch count, as rows of batch_count: the pairs, their downloads, their scores. p_sides {1}: as it is; {1,-1}: the difference '
    'that p_submissions make.';

-- Parallel aggregates of one query take the rows in one order, so none is sorted: comparing languages took longer than all else.
create function mill.add_counts(
    p_batch_id bigint[], p_model_id integer[], p_attempt smallint[], p_language text[], p_outcome smallint[], p_count bigint[]
) returns void
language plpgsql
set plan_cache_mode = force_generic_plan
as $$
begin
    with change as materialized (
        select u.batch_id, u.model_id, u.attempt, sum(u.count)::integer as pairs, coalesce(sum(u.count) filter (where u.outcome = 0), 0)::integer as successes,
               array_agg(u.language) as language, array_agg(u.outcome) as outcome,
               array_agg(u.count::integer) as count
          from unnest(p_batch_id, p_model_id, p_attempt, p_language, p_outcome, p_count) u (batch_id, model_id, attempt, language, outcome, count)
         group by u.batch_id, u.model_id, u.attempt
    ), kept as (
        insert into mill.batch_count as b (batch_id, model_id, attempt, pairs, successes, language, outcome, count)
        select * from change c order by c.batch_id, c.model_id, c.attempt
        on conflict (batch_id, model_id, attempt) do update
           set pairs = b.pairs + excluded.pairs, successes = b.successes + excluded.successes, (language, outcome, count) = (
               select coalesce(array_agg(x.language), '{}'), coalesce(array_agg(x.outcome), '{}'),
                      coalesce(array_agg(x.count), '{}')
                 from (select u.language, u.outcome, sum(u.count)::integer as count
                         from (select * from unnest(b.language, b.outcome, b.count)
                               union all
                               select * from unnest(excluded.language, excluded.outcome, excluded.count)) u (language, outcome, count)
                        group by u.language, u.outcome having sum(u.count) <> 0) x)
    )
    insert into mill.funnel_change (link_kind, model_id, language, outcome, count)
    select x.link_kind, x.model_id, array_agg(x.language), array_agg(x.outcome), array_agg(x.count)
      from (select k.link_kind, k.model_id, u.language, u.outcome, sum(u.count)::integer as count
              from (select c.*, (select b.link_kind from mill.batch b where b.batch_id = c.batch_id) as link_kind  -- a join read all batches
                      from change c) k,
                   unnest(k.language, k.outcome, k.count) u (language, outcome, count)
             group by k.link_kind, k.model_id, u.language, u.outcome having sum(u.count) <> 0) x
     group by x.link_kind, x.model_id;
end
$$;
comment on function mill.add_counts is 'Adds changes, parallel arrays, to batch_count and to the sums over all batches.';

create function mill.lock_counts(p_batch_id bigint) returns void
language plpgsql
as $$
begin
    perform from mill.batch_count where batch_id = p_batch_id and model_id = 0 and attempt = 0 for no key update;
    if not found then
        insert into mill.batch_count (batch_id, model_id, attempt, pairs, successes, language, outcome, count)
        values (p_batch_id, 0, 0, 0, 0, '{}', '{}', '{}') on conflict do nothing;
        perform from mill.batch_count where batch_id = p_batch_id and model_id = 0 and attempt = 0 for no key update;
    end if;
end
$$;
comment on function mill.lock_counts is 'Lets nobody else count a batch until the end of the transaction; what others had counted is seen by the next statement.';

create function mill.count_submissions(p_batch_id bigint, p_kinds text[], p_submissions bigint[], p_sign integer) returns void
language plpgsql
as $$
declare
    places integer[];
    change record;
begin
    perform mill.lock_counts(p_batch_id);
    if 'download' = any (p_kinds) then
        places := array(select d.n from mill.download d where d.batch_id = p_batch_id and d.submission_id = any (p_submissions));
    end if;
    if 'score' = any (p_kinds) then
        places := places || array(select s.n from mill.score s where s.batch_id = p_batch_id and s.submission_id = any (p_submissions));
    end if;
    if 'extract' = any (p_kinds) then
        places := places || array(select p.n from mill.pair p where p.batch_id = p_batch_id and p.submission_id = any (p_submissions));
    end if;
    if cardinality(places) > 0 then
        select array_agg(f.model_id) as model_id, array_agg(f.attempt) as attempt, array_agg(f.language) as language,
               array_agg(f.outcome) as outcome, array_agg(f.count * p_sign) as count
          into change from mill.funnel_of(p_batch_id, places, p_submissions, '{1,-1}') f having count(*) > 0;
        if found then
            perform mill.add_counts(array_fill(p_batch_id, array[cardinality(change.count)]), change.model_id, change.attempt, change.language,
                                    change.outcome, change.count);
        end if;
    end if;
end
$$;
comment on function mill.count_submissions is
    'Counts that submissions of these kinds, whose rows are there, count in a batch from now on (p_sign 1), or no more (-1).';

-- Nearly every acceptance is of a batch of which all pairs count, that has one download attempt, and one score task of the model. Then
-- nothing else is known of the positions, and what is added is what was submitted: a third of the work of mill.funnel_of. The key of
-- mill.download has one row of an attempt and a position; a score comes after the row that it belongs to.
create function mill.is_first(t mill.task) returns boolean
language plpgsql stable
as $$
begin
    return not exists (select from mill.task x
                        where x.batch_id = t.batch_id and x.task_id <> t.task_id and not x.is_replica
                          and (x.kind = 'download' and x.attempt <> t.attempt or x.kind = 'score' and t.kind = 'score' and x.model_id = t.model_id))
       and (select c.pairs from mill.batch_count c where c.batch_id = t.batch_id and c.model_id = 0 and c.attempt = 0)
           = (select b.pair_count from mill.batch b where b.batch_id = t.batch_id);
end
$$;
comment on function mill.is_first is 'Whether no other attempt, task of the model or withdrawn pair is known of a task''s batch. Asked under the lock of the batch''s counters.';

-- enable_sort: one row is expected, and sorted by language, which took half of the time; hashes compare bytes.
create function mill.count_first(s mill.submission, t mill.task) returns void
language plpgsql
set enable_sort = off
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
as $$
declare
    places integer[];
    outcomes smallint[];
    gone bigint[];
    change record;
begin
    if t.kind = 'download' then
        select array_agg(d.n), array_agg(d.outcome) into places, outcomes
          from mill.download d where d.batch_id = t.batch_id and d.submission_id = s.submission_id;
    else
        gone := array(select w.submission_id
                        from mill.task x join mill.submission y using (task_id) join mill.withdrawn w using (submission_id)
                       where x.batch_id = t.batch_id and x.kind = 'download' and x.attempt = t.attempt);
        select array_agg(c.n), array_agg(c.outcome) into places, outcomes
          from mill.score c
          join mill.download d on d.batch_id = t.batch_id and d.n = c.n and d.attempt = t.attempt
         where c.batch_id = t.batch_id and c.submission_id = s.submission_id and d.outcome = 0 and d.submission_id <> all (gone);
    end if;
    select array_agg(x.language) as language, array_agg(x.outcome) as outcome, array_agg(x.count) as count into change
      from (select coalesce(p.language, 'nolang') as language, u.outcome, count(*) as count
              from unnest(places, outcomes) u (n, outcome)
              join (select n, language from mill.pair where batch_id = t.batch_id and n = any (places)) p using (n)
             group by 1, 2) x;
    if change.count is not null then
        perform mill.add_counts(array_fill(t.batch_id, array[cardinality(change.count)]), array_fill(coalesce(t.model_id, 0), array[cardinality(change.count)]),
                                array_fill(t.attempt, array[cardinality(change.count)]), change.language, change.outcome, change.count);
    end if;
end
$$;
comment on function mill.count_first is 'As mill.count_submissions of one accepted submission, where mill.is_first.';

-- After finish_task, which may lock mill.batch.
create function mill.count_accepted(s mill.submission, t mill.task) returns void
language plpgsql
as $$
begin
    if t.is_replica or t.kind not in ('download', 'score')  -- a merge counts what it deals
       or t.kind = 'score' and (select m.kind from mill.model m where m.model_id = t.model_id) <> 'clip' then
        return;
    end if;
    perform mill.lock_counts(t.batch_id);
    if mill.is_first(t) then
        perform mill.count_first(s, t);
    else
        perform mill.count_submissions(t.batch_id, array[t.kind], array[s.submission_id], 1);
    end if;
    if s.submission_id % 32 = 0 then  -- a steward that has much to accept comes to nothing else
        perform mill.fold_counts();
        perform mill.fold_credit();
        perform mill.note_progress();
    end if;
end
$$;
comment on function mill.count_accepted is 'Counts an accepted submission of downloads or scores.';

-- Each batch once, with all its submissions of the statement: one by one, a second would be measured without the first.
create function mill.count_withdrawn_pairs() returns trigger
language plpgsql
as $$
declare
    b record;
begin
    if not exists (select from newly n join mill.submission s using (submission_id) join mill.task t using (task_id)
                    where not t.is_replica and t.kind in ('extract', 'download', 'score')) then
        return null;
    end if;
    -- in the order in which a merge locks
    if exists (select from newly n join mill.submission s using (submission_id) join mill.task t using (task_id) where t.kind = 'extract') then
        lock table mill.seen_url in share row exclusive mode;
    end if;
    for b in
        with gone as materialized (
            select n.submission_id, t.kind, t.batch_id
              from newly n join mill.submission s using (submission_id) join mill.task t using (task_id) left join mill.model m using (model_id)
             where not t.is_replica and (t.kind = 'download' or t.kind = 'score' and m.kind = 'clip')
            union all
            select n.submission_id, 'extract', unnest(x.batch_ids) from newly n join mill.extraction_batch x using (submission_id)
        ), locked as materialized (
            select from mill.batch x where x.batch_id in (select g.batch_id from gone g) order by x.batch_id for no key update
        )
        select g.batch_id, array_agg(distinct g.kind) as kinds, array_agg(g.submission_id) as submissions
          from gone g where (select count(*) from locked) > 0
         group by g.batch_id order by g.batch_id
    loop
        perform mill.count_submissions(b.batch_id, b.kinds, b.submissions, -1);
    end loop;
    return null;
end
$$;
comment on function mill.count_withdrawn_pairs is 'Takes out of the counters what submissions counted, as they are withdrawn. A replica counted nothing.';

create trigger count_pairs after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.count_withdrawn_pairs();

-- Of the rows that are being dealt, and not of those in mill.pair, of whose batches a merge would read some thirty. They are new, so
-- that nothing else counts for them; and the merge has the lock of each batch.
create function mill.count_dealt(
    s mill.submission, sender name, size integer, dealt_kind text[], dealt_bucket integer[], dealt_first integer[], dealt_batch bigint[]
) returns void
language plpgsql
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
as $$
declare
    change record;
begin
    insert into mill.extraction_batch (submission_id, batch_ids)
    select s.submission_id, coalesce(array_agg(distinct b), '{}') from unnest(dealt_batch) b;
    with dealt as materialized (
        select d.batch_id, coalesce(m.language, 'nolang') as language, g.page is not null as refused
          from mill.merge_row m
          join unnest(dealt_kind, dealt_bucket, dealt_first, dealt_batch) as d (link_kind, bucket, first, batch_id)
            on d.link_kind = m.link_kind and d.bucket = m.bucket and m.place >= d.first and m.place < d.first + size
          left join (select i.page from inbox.page i
                      where i.lease_id = s.lease_id and i.worker = sender and i.opt_out_signal is not null) g on g.page = m.page
    )
    select array_agg(x.batch_id) as batch_id, array_agg(x.attempt) as attempt, array_agg(x.language) as language,
           array_agg(x.outcome) as outcome, array_agg(x.count) as count
      into change
      from (select d.batch_id, 0::smallint as attempt, d.language, -1::smallint as outcome, count(*) as count from dealt d group by d.batch_id, d.language
            union all
            select d.batch_id, 1::smallint, d.language, 50::smallint, count(*) from dealt d where d.refused group by d.batch_id, d.language) x;
    if change.count is not null then
        perform mill.add_counts(change.batch_id, array_fill(0, array[cardinality(change.count)]), change.attempt, change.language,
                                change.outcome, change.count);
    end if;
end
$$;
comment on function mill.count_dealt is 'Counts the pairs of a merge, and of these the downloads that their pages refused; keeps the batches of the extraction.';

-- A task may be ended in the transaction of its worker, which may stay open: a row is inserted, and none updated.
create function mill.count_done() returns trigger
language plpgsql
as $$
declare
    t mill.task;
    change integer := 1;
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.state <> 'done' then
        t := old;
        change := -1;
    else
        t := new;
    end if;
    insert into mill.done_change (kind, crawl_id, count)
    values (t.kind, coalesce((select case when f.removed_at is null then f.crawl_id else -1 end from mill.wat_file f
                               where t.kind = 'extract' and f.wat_id = t.wat_id), 0), change);
    return null;
end
$$;
comment on function mill.count_done is 'Counts a task that is done, or is no longer.';

create trigger count_done after update of state on mill.task
    for each row when ((old.state = 'done') <> (new.state = 'done')) execute function mill.count_done();
create trigger count_done_at_once after insert on mill.task for each row when (new.state = 'done') execute function mill.count_done();
create trigger count_done_before after delete on mill.task for each row when (old.state = 'done') execute function mill.count_done();

create function mill.count_removed_file() returns trigger
language plpgsql
as $$
begin
    insert into mill.done_change (kind, crawl_id, count)
    select 'extract', x.crawl_id, x.count
      from mill.task t cross join lateral (values (coalesce(old.crawl_id, 0), -1), (-1, 1)) x (crawl_id, count)
     where t.kind = 'extract' and t.wat_id = new.wat_id and t.state = 'done';
    return null;
end
$$;
comment on function mill.count_removed_file is 'Takes a file that an admin took back out of its crawl''s count.';

create trigger count_removed_file after update of removed_at on mill.wat_file
    for each row when (old.removed_at is null and new.removed_at is not null) execute function mill.count_removed_file();

-- Whoever finds the lock taken leaves it to the one that holds it.
create function mill.fold_counts() returns void
language plpgsql
as $$
begin
    if not exists (select from mill.funnel_change) and not exists (select from mill.done_change) then
        return;
    end if;
    begin
        lock table mill.funnel_count in share row exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    with taken as (
        delete from mill.funnel_change returning *
    )
    insert into mill.funnel_count as f (link_kind, model_id, language, outcome, count)
    select t.link_kind, t.model_id, u.language, u.outcome, sum(u.count)
      from taken t, unnest(t.language, t.outcome, t.count) u (language, outcome, count)
     group by t.link_kind, t.model_id, u.language, u.outcome having sum(u.count) <> 0
    on conflict (link_kind, model_id, language, outcome) do update set count = f.count + excluded.count;
    with taken as (
        delete from mill.done_change returning *
    )
    insert into mill.done_count as d (kind, crawl_id, count)
    select t.kind, t.crawl_id, sum(t.count) from taken t group by t.kind, t.crawl_id having sum(t.count) <> 0
    on conflict (kind, crawl_id) do update set count = d.count + excluded.count;
end
$$;
comment on function mill.fold_counts is 'Adds the changes that are committed to the sums. The steward calls it.';

create view mill.funnel as
select x.link_kind, x.model_id, x.language, x.outcome, sum(x.count)::bigint as count
  from (select f.link_kind, f.model_id, f.language, f.outcome, f.count from mill.funnel_count f
        union all
        select c.link_kind, c.model_id, u.language, u.outcome, u.count
          from mill.funnel_change c, unnest(c.language, c.outcome, c.count) u (language, outcome, count)) x
 group by x.link_kind, x.model_id, x.language, x.outcome having sum(x.count) <> 0;
comment on view mill.funnel is 'The sums of batch_count over all batches.';
comment on column mill.funnel.link_kind is 'As funnel_count.link_kind';
comment on column mill.funnel.model_id is 'As funnel_count.model_id';
comment on column mill.funnel.language is 'As funnel_count.language';
comment on column mill.funnel.outcome is 'As funnel_count.outcome';
comment on column mill.funnel.count is 'How many pairs';

create view mill.done as
select x.kind, x.crawl_id, sum(x.count)::bigint as count
  from (select d.kind, d.crawl_id, d.count from mill.done_count d union all select c.kind, c.crawl_id, c.count from mill.done_change c) x
 group by x.kind, x.crawl_id having sum(x.count) <> 0;
comment on view mill.done is 'The tasks that are done.';
comment on column mill.done.kind is 'The kind of work';
comment on column mill.done.crawl_id is 'As done_count.crawl_id';
comment on column mill.done.count is 'How many tasks';

-- Two arms, each with the index of its predicate.
create view mill.undone as
select task_id, kind, state, wat_id, ready_at from mill.task where state in ('ready', 'leased', 'submitted')
union all
select task_id, kind, state, wat_id, ready_at from mill.task where state in ('discarded', 'parked');
comment on view mill.undone is 'The tasks that are not done.';
comment on column mill.undone.task_id is 'The task';
comment on column mill.undone.kind is 'The kind of work';
comment on column mill.undone.state is 'As task.state';
comment on column mill.undone.wat_id is 'The WAT file that it is about';
comment on column mill.undone.ready_at is 'As task.ready_at';

-- Without languages, from the sums of each batch: of a ring of 1,600 batches 5,000 rows, and no array.
create view mill.scored as
with funnel as materialized (
    select model_id, outcome, sum(count) as pairs from mill.funnel where model_id > 0 or outcome = 0 group by 1, 2
), unscored as (
    select m.model_id, sum(case x.model_id when 0 then x.pairs else -x.pairs end) as pairs
      from mill.model m join funnel x on x.model_id in (0, m.model_id)
     where m.kind = 'clip' and m.retired_at is null
     group by m.model_id
), waiting as (
    select t.model_id, sum(case c.model_id when 0 then c.successes else -c.pairs end) as pairs
      from mill.scoring_to_come t
      join mill.batch_count c on c.batch_id = t.batch_id and c.model_id in (0, t.model_id) and c.attempt > 0 and (t.whole or c.attempt = any (t.attempts))
     group by t.model_id
), counted as (
    select f.model_id, o.name as outcome, f.pairs from funnel f join mill.score_outcome o on o.code = f.outcome where f.model_id > 0
    union all
    select u.model_id, x.outcome, x.pairs
      from unscored u left join waiting w using (model_id),
           lateral (values ('waiting', coalesce(w.pairs, 0)), ('not_queued', u.pairs - coalesce(w.pairs, 0))) x (outcome, pairs)
)
select m.name as model, c.outcome, sum(c.pairs)::bigint as pairs
  from counted c join mill.model m using (model_id) where c.pairs <> 0 group by m.name, c.outcome;
comment on view mill.scored is 'As report.score_count, of all languages together.';
comment on column mill.scored.model is 'As report.score_count.model';
comment on column mill.scored.outcome is 'As report.score_count.outcome';
comment on column mill.scored.pairs is 'How many pairs';

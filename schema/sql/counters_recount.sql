-- Counters against the rows: what `pairmill db recount` shows, and mends.

-- A batch whose pairs are not in this database any more, as those of a partition that was archived and detached, keeps its counts.
create view mill.miscount as
with apart as (select)
select b.batch_id, x.model_id, x.attempt, x.language, x.outcome, sum(x.kept)::integer as kept, sum(x.found)::integer as found
  from mill.batch b
 cross join lateral (
       select c.model_id, c.attempt, u.language, u.outcome, u.count as kept, 0::bigint as found
         from mill.batch_count c, unnest(c.language, c.outcome, c.count) u (language, outcome, count) where c.batch_id = b.batch_id
       union all
       select f.model_id, f.attempt, f.language, f.outcome, 0, f.count
         from mill.funnel_of(b.batch_id, array(select p.n from mill.pair p where p.batch_id = b.batch_id), '{}', '{1}') f
       offset 0) x
 where exists (select from mill.pair p where p.batch_id = b.batch_id)
 group by b.batch_id, x.model_id, x.attempt, x.language, x.outcome
having sum(x.kept) <> sum(x.found);
comment on view mill.miscount is 'Counters of batches that differ from their rows: none. Name a range of batch_id.';
comment on column mill.miscount.batch_id is 'The batch';
comment on column mill.miscount.model_id is 'As batch_count.model_id';
comment on column mill.miscount.attempt is 'As batch_count.attempt';
comment on column mill.miscount.language is 'As batch_count.language';
comment on column mill.miscount.outcome is 'As batch_count.outcome';
comment on column mill.miscount.kept is 'What the counter says';
comment on column mill.miscount.found is 'What the rows say';

create view mill.missum as
select x.link_kind, x.model_id, x.language, x.outcome, sum(x.kept)::bigint as kept, sum(x.found)::bigint as found
  from (select f.link_kind, f.model_id, f.language, f.outcome, f.count as kept, 0 as found from mill.funnel f
        union all
        select b.link_kind, c.model_id, u.language, u.outcome, 0, sum(u.count)
          from mill.batch_count c join mill.batch b using (batch_id), unnest(c.language, c.outcome, c.count) u (language, outcome, count)
         group by b.link_kind, c.model_id, u.language, u.outcome) x
 group by x.link_kind, x.model_id, x.language, x.outcome having sum(x.kept) <> sum(x.found);
comment on view mill.missum is 'Sums that differ from the counters of all batches: none. Reads every counter.';
comment on column mill.missum.link_kind is 'As funnel_count.link_kind';
comment on column mill.missum.model_id is 'As funnel_count.model_id';
comment on column mill.missum.language is 'As funnel_count.language';
comment on column mill.missum.outcome is 'As funnel_count.outcome';
comment on column mill.missum.kept is 'What the sum says';
comment on column mill.missum.found is 'What the batches say';

create view mill.misdone as
select x.kind, x.crawl_id, sum(x.kept)::bigint as kept, sum(x.found)::bigint as found
  from (select d.kind, d.crawl_id, d.count as kept, 0 as found from mill.done d
        union all
        select t.kind, case when f.removed_at is null then coalesce(f.crawl_id, 0) else -1 end, 0, count(*)
          from mill.task t left join mill.wat_file f on t.kind = 'extract' and f.wat_id = t.wat_id
         where t.state = 'done' group by 1, 2) x
 group by x.kind, x.crawl_id having sum(x.kept) <> sum(x.found);
comment on view mill.misdone is 'Counts of tasks that are done that differ from the tasks: none. Reads every task.';
comment on column mill.misdone.kind is 'The kind of work';
comment on column mill.misdone.crawl_id is 'As done_count.crawl_id';
comment on column mill.misdone.kept is 'What the counter says';
comment on column mill.misdone.found is 'What the tasks say';

-- A batch at a time is locked, and measured and mended in one statement's view of it.
create function mill.recount(p_first_batch bigint, p_last_batch bigint, out batches bigint, out wrong bigint)
language plpgsql
as $$
declare
    b bigint;
    change record;
begin
    batches := 0;
    wrong := 0;
    for b in select x.batch_id from mill.batch x where x.batch_id between p_first_batch and p_last_batch order by x.batch_id loop
        batches := batches + 1;
        perform mill.lock_counts(b);
        select array_agg(m.batch_id) as batch_id, array_agg(m.model_id) as model_id, array_agg(m.attempt) as attempt, array_agg(m.language) as language,
               array_agg(m.outcome) as outcome, array_agg((m.found - m.kept)::bigint) as count
          into change from mill.miscount m where m.batch_id = b having count(*) > 0;
        if found then
            wrong := wrong + 1;
            perform mill.add_counts(change.batch_id, change.model_id, change.attempt, change.language, change.outcome, change.count);
        end if;
    end loop;
end
$$;
comment on function mill.recount is 'Counts the rows of a range of batches anew, and mends what differs. Returns how many batches, and in how many something did.';

create function mill.resum(out sums bigint, out tasks bigint, out workers bigint)
language plpgsql
as $$
begin
    lock table mill.funnel_count in share row exclusive mode;  -- two that mend at once would mend twice
    with mended as (
        insert into mill.funnel_change (link_kind, model_id, language, outcome, count)
        select m.link_kind, m.model_id, array_agg(m.language), array_agg(m.outcome), array_agg((m.found - m.kept)::integer)
          from mill.missum m group by m.link_kind, m.model_id
        returning cardinality(count) as wrong
    )
    select coalesce(sum(m.wrong), 0) into sums from mended m;
    with mended as (
        insert into mill.done_change (kind, crawl_id, count) select m.kind, m.crawl_id, (m.found - m.kept)::integer from mill.misdone m returning 1
    )
    select count(*) into tasks from mended;
    with mended as (
        insert into mill.credit_change (worker_id, hour, tasks, rows, checks)
        select m.worker_id, 'epoch', 0, m.found - m.kept, 0 from mill.miscredit m returning 1
    )
    select count(*) into workers from mended;
    perform mill.fold_counts();
    perform mill.fold_credit();
end
$$;
comment on function mill.resum is 'Adds the counters of all batches up anew, and counts the tasks that are done and the rows of each worker; mends what differs. Returns how many did.';

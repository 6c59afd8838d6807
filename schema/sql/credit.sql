-- Each worker's credit, and the line's totals minute by minute: what the public page reads in place of submissions, which are
-- millions. docs/decisions/2026-11-27-the-public-page.md
--
-- Like the changes of the funnel, a change is inserted, and no row of sums is locked by an acceptance, a worker or a withdrawal.

create function mill.hour(p_at timestamptz) returns timestamptz
language sql immutable parallel safe
return date_trunc('hour', p_at, 'UTC');
comment on function mill.hour is 'The hour in which a moment lies.';

create function mill.credit_accepted() returns trigger
language plpgsql
as $$
begin
    insert into mill.credit_change (worker_id, hour, tasks, rows, checks) values (new.worker_id, mill.hour(new.decided_at), 0, new.row_count, 0);
    return null;
end
$$;
comment on function mill.credit_accepted is 'Credits a worker with an accepted submission.';

create trigger credit_accepted after update of state on mill.submission
    for each row when (new.state = 'accepted' and old.state <> 'accepted') execute function mill.credit_accepted();

create function mill.credit_completed() returns trigger
language plpgsql
as $$
begin
    insert into mill.credit_change (worker_id, hour, tasks, rows, checks)
    select i.worker_id, mill.hour(new.ended_at), 1, 0, 0 from mill.instance i where i.instance_id = new.instance_id;
    return null;
end
$$;
comment on function mill.credit_completed is 'Credits a worker with a task that it handed over whole.';

-- A heartbeat names no ended_as, so the trigger costs it nothing.
create trigger credit_completed after update of ended_as on mill.lease
    for each row when (new.ended_as = 'completed') execute function mill.credit_completed();

create function mill.credit_agreed() returns trigger
language plpgsql
as $$
begin
    insert into mill.credit_change (worker_id, hour, tasks, rows, checks) values (new.worker_id, mill.hour(now()), 0, 0, 1);
    return null;
end
$$;
comment on function mill.credit_agreed is 'Credits a worker with a check that found its work right.';

create trigger credit_agreed after update of state on mill.replication
    for each row when (new.state = 'agreed' and old.state <> 'agreed') execute function mill.credit_agreed();

create function mill.debit_withdrawn() returns trigger
language plpgsql
as $$
begin
    insert into mill.credit_change (worker_id, hour, tasks, rows, checks)
    select s.worker_id, mill.hour(s.decided_at), 0, -sum(s.row_count), 0
      from newly n join mill.submission s using (submission_id)
     where s.state = 'accepted' group by 1, 2;
    return null;
end
$$;
comment on function mill.debit_withdrawn is 'Takes the rows of withdrawn submissions out of their workers'' credit, those of a replica at its acceptance.';

create trigger debit_withdrawn after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.debit_withdrawn();

-- Hours are kept for a day: 10,000 workers are 250,000 rows.
create function mill.fold_credit() returns void
language plpgsql
as $$
begin
    if not exists (select from mill.credit_change) then
        return;
    end if;
    begin
        lock table mill.credit in share row exclusive mode nowait;
    exception when lock_not_available then
        return;
    end;
    with taken as materialized (
        delete from mill.credit_change returning *
    ), total as (
        insert into mill.credit as c (worker_id, tasks, rows, checks)
        select t.worker_id, sum(t.tasks), sum(t.rows), sum(t.checks) from taken t group by t.worker_id
        on conflict (worker_id) do update set tasks = c.tasks + excluded.tasks, rows = c.rows + excluded.rows, checks = c.checks + excluded.checks
    )
    insert into mill.credit_hour as h (hour, worker_id, tasks, rows)
    select t.hour, t.worker_id, sum(t.tasks), sum(t.rows) from taken t
     where t.hour > now() - interval '25 hours' group by t.hour, t.worker_id having sum(t.tasks) <> 0 or sum(t.rows) <> 0
    on conflict (hour, worker_id) do update set tasks = h.tasks + excluded.tasks, rows = h.rows + excluded.rows;
    delete from mill.credit_hour where hour <= now() - interval '25 hours';
end
$$;
comment on function mill.fold_credit is 'Adds the changes of credit that are committed to the sums. The steward calls it.';

create view mill.credited as
select x.worker_id, sum(x.tasks)::bigint as tasks, sum(x.rows)::bigint as rows, sum(x.checks)::bigint as checks
  from (select c.worker_id, c.tasks, c.rows, c.checks from mill.credit c
        union all
        select d.worker_id, d.tasks, d.rows, d.checks from mill.credit_change d) x
 group by x.worker_id;
comment on view mill.credited is 'Each worker''s credit, of all time.';
comment on column mill.credited.worker_id is 'The worker';
comment on column mill.credited.tasks is 'As credit.tasks';
comment on column mill.credited.rows is 'As credit.rows';
comment on column mill.credited.checks is 'As credit.checks';

-- Whole hours, as they are kept: from 24 to 25 of them.
create view mill.credited_last_day as
select x.worker_id, sum(x.tasks)::bigint as tasks, sum(x.rows)::bigint as rows
  from (select h.worker_id, h.hour, h.tasks, h.rows from mill.credit_hour h
        union all
        select d.worker_id, d.hour, d.tasks, d.rows from mill.credit_change d) x
 where x.hour > now() - interval '25 hours'
 group by x.worker_id;
comment on view mill.credited_last_day is 'Each worker''s credit of the last 24 hours and of those of the hour before that belong to it.';
comment on column mill.credited_last_day.worker_id is 'The worker';
comment on column mill.credited_last_day.tasks is 'As credit.tasks';
comment on column mill.credited_last_day.rows is 'As credit.rows';

create view mill.miscredit as
select x.worker_id, sum(x.kept)::bigint as kept, sum(x.found)::bigint as found
  from (select c.worker_id, c.rows as kept, 0 as found from mill.credited c
        union all
        select s.worker_id, 0, sum(s.row_count)
          from mill.submission s
         where s.state = 'accepted' and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id) group by 1) x
 group by x.worker_id having sum(x.kept) <> sum(x.found);
comment on view mill.miscredit is 'Workers whose credit differs from their submissions: none. Reads every submission.';
comment on column mill.miscredit.worker_id is 'The worker';
comment on column mill.miscredit.kept is 'What the credit says';
comment on column mill.miscredit.found is 'What the submissions say';

create view mill.total as
select (select coalesce(sum(d.count), 0)::bigint from mill.done d where d.kind = 'extract' and d.crawl_id >= 0) as files,
       (select coalesce(sum(c.count), 0)::bigint from mill.crawl_count c where c.stage = 'links' and c.link_kind = 'image') as links,
       f.pairs, f.fetched, f.succeeded, f.scored
  from (select coalesce(sum(x.count) filter (where x.model_id = 0 and x.outcome < 0), 0)::bigint as pairs,
               coalesce(sum(x.count) filter (where x.model_id = 0 and x.outcome >= 0 and x.outcome <> 50), 0)::bigint as fetched,
               coalesce(sum(x.count) filter (where x.model_id = 0 and x.outcome = 0), 0)::bigint as succeeded,
               coalesce(sum(x.count) filter (where x.model_id > 0), 0)::bigint as scored
          from mill.funnel x where x.link_kind = 'image') f;
comment on view mill.total is 'How far the line has come, in one row of counters.';
comment on column mill.total.files is 'WAT files that are extracted';
comment on column mill.total.links is 'Links of images seen in them';
comment on column mill.total.pairs is 'Pairs of images';
comment on column mill.total.fetched is 'Of these, pairs whose download has an outcome that counts, and is no opt-out: most of those a merge tells, and no download';
comment on column mill.total.succeeded is 'Of these, pairs whose image was there';
comment on column mill.total.scored is 'Scores of these that count, once for each model';

-- Eight days of minutes are 11,520 rows of some 90 bytes.
create function mill.note_progress() returns void
language plpgsql
as $$
begin
    if exists (select from mill.progress p where p.at > now() - interval '1 minute') then
        return;
    end if;
    insert into mill.progress (at, files, links, pairs, fetched, succeeded, scored)
    select now(), t.files, t.links, t.pairs, t.fetched, t.succeeded, t.scored from mill.total t on conflict do nothing;
    delete from mill.progress where at < now() - interval '8 days';
end
$$;
comment on function mill.note_progress is 'Notes how far the line has come, once a minute. The steward calls it.';

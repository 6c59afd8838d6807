-- Counts by day, of all that was ever accepted: result tables have no times, and the history of 10^9 rows is not read from them.
-- What a submission has is counted before its acceptance, which empties the inbox; what an extraction has, by the merge.

create function mill.download_counts(s mill.submission, t mill.task) returns jsonb
language plpgsql stable
as $$
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object('stage', c.stage, 'name', c.name, 'count', c.count)), '[]')
          from mill.submission_download d
         cross join lateral (
               select case when t.for_model_id is null or o.code = 50 then 'download' else 'refetch' end as stage, o.name, r.count
                 from (select outcome, count(*) as count from unnest(d.outcome) u (outcome) group by outcome) r
                 join mill.outcome o on o.code = r.outcome
               union all
               select 'opt_out', u.signal, count(*) from unnest(d.signal) u (signal) group by u.signal) c
         where d.submission_id = s.submission_id);
end
$$;
comment on function mill.download_counts is 'Outcomes of a download submission, and signals of its opt-outs.';

create function mill.score_counts(s mill.submission, t mill.task) returns jsonb
language plpgsql stable
as $$
declare
    sender constant name := (select login from mill.worker where worker_id = s.worker_id);
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object('stage', 'score', 'model_id', t.model_id, 'name', o.name, 'count', c.count)), '[]')
          from (select i.outcome, count(*) as count from inbox.score i
                 where i.lease_id = s.lease_id and i.part = s.part and i.worker = sender group by i.outcome) c
          join mill.score_outcome o on o.code = c.outcome);
end
$$;
comment on function mill.score_counts is 'Outcomes of a score submission. Tags are not counted: a tagger''s task may find some of its positions tagged.';

create function mill.submitted_counts(s mill.submission, t mill.task) returns jsonb
language plpgsql stable
as $$
begin
    return case t.kind when 'download' then mill.download_counts(s, t)
                       when 'score' then mill.score_counts(s, t)
                       when 'extract' then '[]'
                       else jsonb_build_array(jsonb_build_object('stage', t.kind, 'count', s.row_count)) end;
end
$$;
comment on function mill.submitted_counts is 'What a submission will count once it is accepted, before it is; of other kinds of work its rows.';

-- What names a file's damage, and attributes, are left out: as many as a worker likes.
create view mill.extraction_count as
select w.submission_id, w.stage, w.link_kind, case when w.stage in ('bad_record', 'ended_early') then '' else w.name end as name,
       sum(w.count)::bigint as count
  from mill.wat_count w
 where w.stage <> 'attribute'
 group by 1, 2, 3, 4
union all
select distinct w.submission_id, 'files', '', '', 1::bigint from mill.wat_count w;
comment on view mill.extraction_count is 'The counts of an extraction that are kept by day.';
comment on column mill.extraction_count.submission_id is 'The extraction';
comment on column mill.extraction_count.stage is 'As daily_count.stage';
comment on column mill.extraction_count.link_kind is 'As daily_count.link_kind';
comment on column mill.extraction_count.name is 'As daily_count.name';
comment on column mill.extraction_count.count is 'How many';

-- In PL/pgSQL, whose plans are kept: an SQL function is planned at each call, and took 2 ms.
--
-- In the order of the key: two stewards that count the same rows wait for each other, and never each for the other. The last
-- statement of an acceptance, so that the wait is short.
create function mill.count_day(s mill.submission, t mill.task, counts jsonb) returns void
language plpgsql
as $$
begin
    insert into mill.daily_count as d (day, stage, link_kind, model_id, name, count)
    select (now() at time zone 'UTC')::date, c.stage, c.link_kind, c.model_id, c.name, c.count
      from (select x.stage, '' as link_kind, coalesce(x.model_id, 0) as model_id, coalesce(x.name, '') as name, x.count
              from jsonb_to_recordset(counts) x (stage text, model_id integer, name text, count bigint)
            union all
            select e.stage, e.link_kind, 0, e.name, e.count from mill.extraction_count e where e.submission_id = s.submission_id) c
     where not t.is_replica
     order by 1, 2, 3, 4, 5
    on conflict (day, stage, link_kind, model_id, name) do update set count = d.count + excluded.count;
end
$$;
comment on function mill.count_day is 'Counts an accepted submission on the day: its extraction''s counts, or those of mill.submitted_counts.';

create function mill.count_withdrawn() returns trigger
language plpgsql
as $$
begin
    insert into mill.withdrawn_count (submission_id, stage, link_kind, model_id, name, count)
    with gone as materialized (
        select n.submission_id, t.kind, t.batch_id, t.attempt, t.model_id, s.row_count
          from newly n join mill.submission s using (submission_id) join mill.task t using (task_id)
         where not t.is_replica
    ), by_batch as materialized (
        select g.kind, g.batch_id, g.attempt, g.model_id, array_agg(g.submission_id) as ids
          from gone g where g.batch_id is not null group by g.kind, g.batch_id, g.attempt, g.model_id
    )
    select e.submission_id, e.stage, e.link_kind, 0, e.name, e.count
      from gone g join mill.extraction_count e using (submission_id)
    union all
    select c.submission_id, 'download', '', 0, o.name, c.count
      from by_batch b
     cross join lateral (select d.submission_id, d.outcome, count(*) as count from mill.download d
                          where d.batch_id = b.batch_id and d.attempt = b.attempt and d.submission_id = any (b.ids) group by 1, 2 offset 0) c
      join mill.outcome o on o.code = c.outcome
     where b.kind = 'download'
    union all
    select c.submission_id, 'refetch', '', 0, o.name, c.count
      from by_batch b
     cross join lateral (select r.submission_id, r.outcome, count(*) as count from mill.refetch r
                          where r.batch_id = b.batch_id and r.attempt = b.attempt and r.submission_id = any (b.ids) group by 1, 2 offset 0) c
      join mill.outcome o on o.code = c.outcome
     where b.kind = 'download'
    union all
    select c.submission_id, 'opt_out', '', 0, c.signal, c.count
      from by_batch b
     cross join lateral (select x.submission_id, x.signal, count(*) as count from mill.opt_out x
                          where x.batch_id = b.batch_id and x.attempt = b.attempt and x.submission_id = any (b.ids) group by 1, 2 offset 0) c
     where b.kind = 'download'
    union all
    select c.submission_id, 'score', '', b.model_id, o.name, c.count
      from by_batch b
     cross join lateral (select x.submission_id, x.outcome, count(*) as count from mill.score x
                          where x.batch_id = b.batch_id and x.model_id = b.model_id and x.submission_id = any (b.ids) group by 1, 2 offset 0) c
      join mill.score_outcome o on o.code = c.outcome
     where b.kind = 'score'
    union all
    select g.submission_id, g.kind, '', 0, '', g.row_count
      from gone g
     where g.kind not in ('extract', 'download', 'score');
    return null;
end
$$;
comment on function mill.count_withdrawn is 'Keeps what submissions had counted, as they are withdrawn. A replica had counted nothing.';

create trigger count_withdrawn after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.count_withdrawn();

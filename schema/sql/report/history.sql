-- The history by day: what came in and what was taken back, for each stage.

create view report.history as
with change as (
    select d.day, d.stage, d.link_kind, d.model_id, d.name, d.count as added, 0::bigint as withdrawn from mill.daily_count d
    union all
    select (w.withdrawn_at at time zone 'UTC')::date, c.stage, c.link_kind, c.model_id, c.name, 0, c.count
      from mill.withdrawn_count c join mill.withdrawn w using (submission_id)
    union all
    select (p.found_at at time zone 'UTC')::date, 'removed_pair', '', 0, '', 1, 0
      from (select min(x.found_at) as found_at from mill.removed_pair x group by x.batch_id, x.n) p
    union all
    select (u.undone_at at time zone 'UTC')::date, 'removed_pair', '', 0, '', 0, u.pairs from mill.removal_undone u
)
select c.day, c.stage, c.link_kind, m.name as model, c.name, sum(c.added)::bigint as added, sum(c.withdrawn)::bigint as withdrawn
  from change c
  left join mill.model m using (model_id)
 group by c.day, c.stage, c.link_kind, c.model_id, m.name, c.name
having sum(c.added) > 0 or sum(c.withdrawn) > 0;
comment on view report.history is
    'What was accepted on each day, and what was withdrawn, since the beginning. Of downloads each attempt counts, where report.sample shows one of each pair.';
comment on column report.history.day is 'The day, in UTC';
comment on column report.history.stage is
    'Of extraction files, records, links, bad_record, ended_early, dropped, duplicate, pair and opted_out (by its page); download, opt_out (by its site), refetch '
    '(for a model that came later), score, removed_pair';
comment on column report.history.link_kind is 'Of the stages of extraction: image, audio, video or document; else empty';
comment on column report.history.model is 'score: the model; else null';
comment on column report.history.name is 'Within the stage: drop reason, language (empty: nolang), outcome, signal; else empty';
comment on column report.history.added is 'How many were accepted on the day';
comment on column report.history.withdrawn is 'How many, accepted on this day or before, stopped counting on it';

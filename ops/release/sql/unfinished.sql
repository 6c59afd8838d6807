-- What is not done of the work that a release would see: counts by what; given_up is done only once an admin does something.

with open_task as (
    select t.* from mill.task t where t.state in ('ready', 'leased', 'submitted') and not t.is_replica
), given_up as (
    select t.* from mill.task t where t.state not in ('ready', 'leased', 'submitted', 'done') and not t.is_replica
)
select (select count(*) from open_task t join mill.wat_file f using (wat_id) where t.kind = 'extract' and 'image' = any (f.link_kinds)) as wat_files,
       (select count(*) from mill.batch b where b.closed_at is null and b.pair_count > 0 and b.link_kind = 'image') as open_batches,
       (select coalesce(sum(b.pair_count), 0)::bigint from mill.batch b where b.closed_at is null and b.link_kind = 'image') as pairs_in_open_batches,
       (select count(*) from open_task t where t.kind = 'download' and t.attempt = 1 and t.for_model_id is null) as downloads,
       (select count(*) from open_task t where t.kind = 'download' and t.attempt > 1 and t.for_model_id is null) as retries,
       (select count(*) from open_task t where t.kind = 'download' and t.for_model_id = any (%(models)s::integer[])) as backfills,
       (select count(*) from open_task t where t.kind = 'score' and t.model_id = any (%(models)s::integer[])) as scorings,
       (select count(*) from mill.submission s join mill.task t using (task_id)
         where s.state = 'received' and not t.is_replica
           and (t.kind in ('extract', 'download') or t.model_id = any (%(models)s::integer[]))) as submissions,
       (select count(*) from given_up t
         where t.kind in ('extract', 'download') and (t.for_model_id is null or t.for_model_id = any (%(models)s::integer[]))
            or t.kind = 'score' and t.model_id = any (%(models)s::integer[])) as given_up

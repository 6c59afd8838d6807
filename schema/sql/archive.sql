-- The archive: finished partitions as Parquet files, beside the database or in place of its rows.
--
-- What takes a partition's rows away holds mill.archive in exclusive mode, and whatever withdraws a submission or queues a task holds it in
-- row share mode. So each withdrawal either is over before the rows go, and is seen by the last look at the state; or it sees that they are gone.

create function mill.archive_state(p_first bigint, p_last bigint, p_extractions bigint[]) returns jsonb
language sql stable security definer  -- of a researcher's view: it counts, and shows no row
set search_path = pg_catalog, pg_temp
as $$
    -- rows come with accepted submissions, or into open batches, and are never changed: so numbers that only rise tell of every change
    select jsonb_build_object('batches', b.batches, 'open', b.open, 'pairs', b.pairs, 'accepted', s.accepted, 'withdrawn', s.withdrawn,
                              'withdrawn_extractions', (select count(*) from mill.withdrawn w where w.submission_id = any (p_extractions)))
      from (select count(*) as batches, count(*) filter (where closed_at is null) as open, coalesce(sum(pair_count), 0) as pairs
              from mill.batch where batch_id between p_first and p_last) b,
           (select count(*) as accepted, count(w.submission_id) as withdrawn
              from mill.task t
              join mill.submission x on x.task_id = t.task_id and x.state = 'accepted'
              left join mill.withdrawn w on w.submission_id = x.submission_id
             where t.batch_id between p_first and p_last) s
$$;
comment on function mill.archive_state is
    'What the database says of a range of batches whose pairs came with these extractions: the same again, as long as none of their rows came, or '
    'ceased to count. Reads batches, tasks and submissions, and no rows of pairs.';

create view mill.newest_archive as
select distinct on (first_batch) * from mill.archive order by first_batch, generation desc;
comment on view mill.newest_archive is 'The newest generation of each archived partition.';
comment on column mill.newest_archive.first_batch is 'As mill.archive.first_batch';
comment on column mill.newest_archive.generation is 'As mill.archive.generation';
comment on column mill.newest_archive.last_batch is 'As mill.archive.last_batch';
comment on column mill.newest_archive.folder is 'As mill.archive.folder';
comment on column mill.newest_archive.state is 'As mill.archive.state';
comment on column mill.newest_archive.removed_pairs is 'As mill.archive.removed_pairs';
comment on column mill.newest_archive.extractions is 'As mill.archive.extractions';
comment on column mill.newest_archive.files is 'As mill.archive.files';
comment on column mill.newest_archive.manifest_sha256 is 'As mill.archive.manifest_sha256';
comment on column mill.newest_archive.archived_at is 'As mill.archive.archived_at';
comment on column mill.newest_archive.archived_by is 'As mill.archive.archived_by';
comment on column mill.newest_archive.detached_at is 'As mill.archive.detached_at';

create view mill.partition as
select r.first_batch, r.first_batch + 999 as last_batch, r.batches, r.pairs,
       exists (select from mill.batch l where l.batch_id > r.first_batch + 999) and r.open = 0 as is_full,
       (select count(*) from mill.task t
         where t.batch_id between r.first_batch and r.first_batch + 999 and t.kind in ('download', 'score')
           and t.state in ('ready', 'leased', 'submitted', 'parked')) as open_tasks,
       a.generation, a.folder, a.files, a.archived_at, a.detached_at,
       a.state = mill.archive_state(a.first_batch, a.last_batch, a.extractions) as is_current,
       a.removed_pairs as removed_pairs_then,
       (select count(*) from mill.removed_pair x where x.batch_id between r.first_batch and r.first_batch + 999) as removed_pairs
  from (select batch_id / 1000 * 1000 as first_batch, count(*) as batches, sum(pair_count)::bigint as pairs,
               count(*) filter (where closed_at is null) as open
          from mill.batch group by 1) r
  left join mill.newest_archive a using (first_batch);
comment on view mill.partition is 'The partitions of the results, 1,000 batches each, and the newest generation of each one''s facts.';
comment on column mill.partition.first_batch is 'First batch of the partition, there or not';
comment on column mill.partition.last_batch is 'Last batch of the partition';
comment on column mill.partition.batches is 'Batches in it so far; a number may be missing';
comment on column mill.partition.pairs is 'Pairs in them';
comment on column mill.partition.is_full is 'Whether no pair comes in any more: a later batch is there, and none of these is open';
comment on column mill.partition.open_tasks is 'Download and score tasks that are ready, leased, submitted or parked';
comment on column mill.partition.generation is 'As mill.archive.generation; null: not archived';
comment on column mill.partition.folder is 'As mill.archive.folder';
comment on column mill.partition.files is 'As mill.archive.files';
comment on column mill.partition.archived_at is 'As mill.archive.archived_at';
comment on column mill.partition.detached_at is 'As mill.archive.detached_at';
comment on column mill.partition.is_current is 'Whether the newest generation has what the database has; null: not archived';
comment on column mill.partition.removed_pairs_then is 'As mill.archive.removed_pairs';
comment on column mill.partition.removed_pairs is 'Pairs of it that removals name';

create function mill.detached(p_batch_id bigint) returns boolean
language sql stable
as $$
    select exists (select from mill.archive a where a.detached_at is not null and p_batch_id between a.first_batch and a.last_batch)
$$;
comment on function mill.detached is 'Whether a batch''s rows are in the archive alone.';

create function mill.refuse_detached() returns trigger
language plpgsql
as $$
declare
    a mill.archive;
begin
    lock table mill.archive in row share mode;
    select * into a from mill.archive x where x.detached_at is not null and new.batch_id between x.first_batch and x.last_batch;
    if found then
        perform mill.refuse('PM003', format('batch %s is archived and its rows are not here: `pairmill archive restore %s-%s` brings them back',
                                            new.batch_id, a.first_batch, a.last_batch));
    end if;
    return new;
end
$$;
comment on function mill.refuse_detached is 'Refuses a task of a batch whose rows are in the archive alone: its worker would find nothing to do.';

create trigger refuse_detached before insert on mill.task
    for each row when (new.batch_id is not null) execute function mill.refuse_detached();
create trigger refuse_detached_again before update of state on mill.task
    for each row when (new.batch_id is not null and new.state = 'ready' and old.state in ('done', 'discarded', 'parked'))
    execute function mill.refuse_detached();

create function mill.note_withdrawn_detached() returns trigger
language plpgsql
as $$
begin
    lock table mill.archive in row share mode;
    if exists (select from mill.archive where detached_at is not null) then
        insert into mill.withdrawn_detached (submission_id)
        select w.submission_id from newly w join mill.submission s using (submission_id) join mill.task t using (task_id)
         where mill.detached(t.batch_id)
        on conflict do nothing;
    end if;
    return null;
end
$$;
comment on function mill.note_withdrawn_detached is 'Notes withdrawals of submissions whose rows are in the archive alone.';

create trigger note_withdrawn_detached after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.note_withdrawn_detached();

-- The pairs of an extraction free their URLs as it is withdrawn, and nobody but an admin withdraws one.
create function mill.require_pairs(p_submission_id bigint) returns void
language plpgsql
as $$
declare
    a mill.archive;
begin
    select * into a from mill.archive x where x.detached_at is not null and p_submission_id = any (x.extractions) order by x.first_batch limit 1;
    if found then
        perform mill.refuse('PM003', format('pairs of extraction %s are in batches %s to %s, which are archived and not here: '
                                            '`pairmill archive restore %s-%s` brings them back',
                                            p_submission_id, a.first_batch, a.last_batch, a.first_batch, a.last_batch));
    end if;
end
$$;
comment on function mill.require_pairs is 'Refuses the withdrawal of an extraction of which some pairs are in the archive alone.';

create function mill.index_images(p_first bigint, p_last bigint) returns bigint
language plpgsql
as $$
declare
    added bigint;
begin
    insert into mill.image_key (key, sample_id)
    select ('x' || left(h.hash, 16))::bit(64)::bigint, mill.sample_id(d.batch_id, d.n)
      from mill.download d
     cross join lateral (values (replace(d.md5::text, '-', '')), (encode(substr(d.sha1, 1, 8), 'hex')), (encode(substr(d.sha256, 1, 8), 'hex'))) h (hash)
     where d.batch_id between p_first and p_last and h.hash is not null
     order by 1, 2
    on conflict do nothing;
    get diagnostics added = row_count;
    return added;
end
$$;
comment on function mill.index_images is 'Puts the images of a range of batches into mill.image_key. Returns the keys that were new.';

-- Named, and not all that are partitioned by batch: the rows of a table that no file has must stay.
create function mill.archived_tables() returns text[]
language sql immutable parallel safe
return array['pair', 'download', 'score', 'tag', 'embedding', 'opt_out', 'refetch'];
comment on function mill.archived_tables is 'The tables whose rows the archive has, which a partition takes along as it is detached.';

create function mill.detach_partition(p_first bigint, p_generation integer) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    a mill.archive;
    parent text;
    child text;
begin
    lock table mill.archive in exclusive mode;
    select * into a from mill.newest_archive x where x.first_batch = p_first;
    if a.generation is distinct from p_generation or a.detached_at is not null
       or a.state <> mill.archive_state(a.first_batch, a.last_batch, a.extractions)
       or exists (select from mill.partition x where x.first_batch = p_first and (not x.is_full or x.open_tasks > 0)) then
        perform mill.refuse('PM003', format('batches %s to %s have changed since they were compared: archive them again', a.first_batch, a.last_batch));
    end if;
    foreach parent in array mill.archived_tables() loop
        child := format('%s_b%s', parent, lpad((p_first / 1000)::text, 6, '0'));
        continue when to_regclass('mill.' || child) is null;
        execute format('alter table mill.%I detach partition mill.%I', parent, child);
        execute format('drop table mill.%I', child);
    end loop;
    update mill.archive x set detached_at = now() where x.first_batch = a.first_batch and x.generation = a.generation;
end
$$;
comment on function mill.detach_partition is
    'Drops the rows of an archived partition, if nothing of it has changed. mill.seen_url, mill.image_key, batches, tasks and submissions stay.';

-- Apart from their parents until they are filled and compared: whoever queues a task need not wait for that.
create function mill.make_restored(p_first bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    parent text;
    child text;
begin
    if not mill.detached(p_first) then
        perform mill.refuse('PM003', format('the partition of batch %s is not detached', p_first));
    end if;
    foreach parent in array mill.archived_tables() loop
        child := format('%s_b%s', parent, lpad((p_first / 1000)::text, 6, '0'));
        execute format('drop table if exists mill.%I', child);
        -- with the constraint ATTACH reads no row
        execute format('create table mill.%I (like mill.%I including all, constraint attached check (batch_id >= %s and batch_id < %s))'
                       ' with (autovacuum_freeze_min_age = 0)', child, parent, p_first, p_first + 1000);
        execute format('comment on table mill.%I is %L', child, format('Batches %s to %s of mill.%s', p_first, p_first + 999, parent));
    end loop;
end
$$;
comment on function mill.make_restored is 'Makes empty tables, not yet partitions, for the rows of a detached partition.';

create function mill.attach_partition(p_first bigint) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    parent text;
    child text;
begin
    lock table mill.archive in exclusive mode;
    update mill.archive set detached_at = null where first_batch = p_first and detached_at is not null;
    if not found then
        perform mill.refuse('PM003', format('the partition of batch %s is not detached', p_first));
    end if;
    foreach parent in array mill.archived_tables() loop
        child := format('%s_b%s', parent, lpad((p_first / 1000)::text, 6, '0'));
        execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)', parent, child, p_first, p_first + 1000);
        execute format('alter table mill.%I drop constraint attached', child);
    end loop;
    return mill.catch_up(p_first, p_first + 999);
end
$$;
comment on function mill.attach_partition is
    'Makes the filled tables of make_restored partitions again, and catches up with what came meanwhile. Returns the submissions that were withdrawn.';

-- Called once the rows are back.
create function mill.catch_up(p_first bigint, p_last bigint) returns integer
language plpgsql
as $$
declare
    s mill.submission;
    t mill.task;
    downloads bigint[];
    others bigint[];
    other bigint;
begin
    -- a removal takes embeddings along
    delete from mill.embedding e using mill.removed_pair r
     where r.batch_id between p_first and p_last and e.batch_id between p_first and p_last and e.batch_id = r.batch_id and e.n = r.n;
    perform from mill.task x where x.batch_id between p_first and p_last order by x.task_id for update;
    select array_agg(d.submission_id order by d.submission_id) filter (where x.kind = 'download'),
           array_agg(d.submission_id order by d.submission_id) filter (where x.kind <> 'download')
      into downloads, others
      from mill.withdrawn_detached d join mill.submission y using (submission_id) join mill.task x using (task_id)
     where x.batch_id between p_first and p_last;
    perform mill.recount(x.batch_id, x.batch_id)  -- counted they were until now
      from (select distinct y.batch_id from mill.submission x join mill.task y using (task_id) where x.submission_id = any (downloads || others)) x
     order by x.batch_id;
    delete from mill.withdrawn_detached d where d.submission_id = any (downloads || others);
    perform mill.withdraw_downloads(coalesce(downloads, '{}'), 'withdrawn while its rows were archived');
    foreach other in array coalesce(others, '{}') loop
        select * into s from mill.submission x where x.submission_id = other for update;
        select * into t from mill.task x where x.task_id = s.task_id;
        perform mill.hook_withdraw(s, t, (select w.reason from mill.withdrawn w where w.submission_id = other));
    end loop;
    return coalesce(cardinality(downloads), 0) + coalesce(cardinality(others), 0);
end
$$;
comment on function mill.catch_up is
    'Does for a partition whose rows are back what removals and withdrawals could not do meanwhile. Returns the submissions that were withdrawn.';

create view report.archive as
select p.first_batch, p.last_batch, p.batches, p.pairs,
       case when p.detached_at is not null then 'detached' when p.generation is not null then 'archived' else 'live' end as place,
       p.is_current, p.generation, p.folder,
       (select sum((f ->> 'rows')::bigint) from jsonb_path_query(p.files, '$[*]') f)::bigint as rows,
       (select sum((f ->> 'bytes')::bigint) from jsonb_path_query(p.files, '$[*]') f)::bigint as bytes,
       p.archived_at, p.detached_at
  from mill.partition p;
comment on view report.archive is
    'The place of each partition, 1,000 batches: of a detached one the other views show no rows, since they are in its folder''s Parquet files alone.';
comment on column report.archive.first_batch is 'Number of its first batch';
comment on column report.archive.last_batch is 'Number of its last batch';
comment on column report.archive.batches is 'Batches in it so far';
comment on column report.archive.pairs is 'Pairs in them, those that do not count any more among them';
comment on column report.archive.place is 'live: here alone; archived: here and as files; detached: as files alone';
comment on column report.archive.is_current is 'Whether the files have what the database knows; null: there are none';
comment on column report.archive.generation is 'Number of the newest files, from 1';
comment on column report.archive.folder is 'Path or URL of the folder with the files';
comment on column report.archive.rows is 'Rows in the files';
comment on column report.archive.bytes is 'Bytes of the files';
comment on column report.archive.archived_at is 'When the files were written';
comment on column report.archive.detached_at is 'When its rows left the database';

do $$
begin
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.archive_state to %I', left(current_database(), 40) || '_researcher');
end
$$;

-- The ring of thumbnail slots: made, given to batches, and emptied once no task needs their thumbnails.

create function mill.ensure_slots(ring smallint) returns void
language plpgsql
as $$
declare
    child text;
begin
    for i in 0 .. ring - 1 loop
        child := format('thumbnail_s%s', i);
        continue when to_regclass('mill.' || child) is not null;
        execute format('create table mill.%I partition of mill.thumbnail for values in (%s)', child, i);
        -- JPEG does not compress: EXTERNAL saves the attempt
        execute format('alter table mill.%I alter column image set storage external', child);
        -- a slot is truncated before long: to mark its pages as all-visible took as much WAL as to write them
        execute format('alter table mill.%I set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)', child);
        execute format('comment on table mill.%I is %L', child, format('Slot %s of the thumbnail ring', i));
        insert into mill.thumbnail_slot (slot) values (i);
    end loop;
end
$$;
comment on function mill.ensure_slots is 'Makes the thumbnail ring at least this many slots long.';

create function mill.take_slot() returns smallint
language plpgsql
as $$
declare
    taken smallint;
begin
    update mill.thumbnail_slot t
       set batches = t.batches + 1,
           state = case when t.batches + 1 >= s.batches_per_slot then 'full' else 'filling' end
      from mill.setting s
     where t.slot = (select slot from mill.thumbnail_slot
                      where state <> 'full' order by state desc, slot limit 1
                        for update skip locked)  -- a claim that never commits keeps one slot locked, not the ring
    returning t.slot into taken;
    return taken;
end
$$;
comment on function mill.take_slot is 'A slot for one more batch of thumbnails: the one that is filling, else an empty one, else null.';

create function mill.slot_is_done(p_slot smallint) returns boolean
language sql stable
as $$
    select exists (select from mill.model where kind = 'clip' and retired_at is null)
       and not exists (
        select
          from mill.task d
          left join mill.task s on s.batch_id = d.batch_id and s.attempt = d.attempt
                and s.kind in (select name from mill.task_kind where reads_thumbnails)
                and (s.model_id is null
                     -- heads and zero-shot taggers read embeddings; a retired model reads nothing
                     or s.model_id in (select model_id from mill.model where kind in ('clip', 'pixels') and retired_at is null))
          cross join mill.setting
         where d.slot = p_slot
           and (exists (select from mill.submission r where r.task_id = d.task_id and r.state = 'received')
                or 'ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                -- a download can be made again: a full ring does not wait for a discarded or parked one
                or d.state in ('discarded', 'parked') and d.changed_at > now() - make_interval(secs => discarded_hold_seconds)
                   and exists (select from mill.thumbnail_slot where state <> 'full')
                or s.state in ('discarded', 'parked') and s.changed_at > now() - make_interval(secs => discarded_hold_seconds)))
$$;
comment on function mill.slot_is_done is
    'Whether no task needs a slot''s thumbnails any more: its downloads and their score tasks are done, or discarded or parked for long, or '
    'downloads are discarded or parked and the ring is full. False while there is no model: they were fetched to be scored.';

-- Locks the slot, then its tasks. A claim and a submission lock their task first; no deadlock, since a claim never
-- waits for a slot, and this function never for a task that another holds.
create function mill.give_back_places(p_slot smallint) returns void
language plpgsql
as $$
declare
    discarded bigint[];
    places integer;
begin
    perform from mill.thumbnail_slot where slot = p_slot for update;
    discarded := array(select task_id from mill.task where slot = p_slot and state in ('discarded', 'parked') order by task_id for update skip locked);
    -- a second statement, which sees submissions made until the tasks were locked
    update mill.task t set slot = null
     where t.task_id = any (discarded) and not exists (select from mill.submission s where s.task_id = t.task_id);
    get diagnostics places = row_count;
    if places > 0 then
        update mill.thumbnail_slot set batches = batches - places, state = 'filling' where slot = p_slot;
    end if;
end
$$;
comment on function mill.give_back_places is 'Frees the places in a slot of discarded and parked tasks under which nothing was submitted. Locks the slot.';

create function api.empty_slots_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    w mill.worker := mill.me('steward');
    candidate smallint;
    emptied integer := 0;
begin
    for candidate in select slot from mill.thumbnail_slot where state <> 'empty' order by slot loop
        begin
            perform mill.give_back_places(candidate);  -- and locks it: no claim adds a batch
            continue when not mill.slot_is_done(candidate);
            perform from mill.task where slot = candidate order by task_id for update;  -- none is queued again meanwhile
            continue when not mill.slot_is_done(candidate);
            execute format('truncate mill.thumbnail_s%s', candidate);
            update mill.task set slot = null where slot = candidate;
            update mill.thumbnail_slot set state = 'empty', batches = 0 where slot = candidate;
            emptied := emptied + 1;
        exception when lock_not_available then
            null;  -- a reader is at work; the next round tries again
        end;
    end loop;
    return emptied;
end
$$;
comment on function api.empty_slots_v1 is 'Truncates the thumbnail slots that no task needs any more.';

-- Partitions of the result tables.

-- 1,000 batches, 10 million pairs, are one partition: LAION-5B's candidates would be about 5,000.
create function mill.ensure_partitions(upto_batch bigint) returns void
language plpgsql
as $$
declare
    width constant bigint := 1000;
    parent text;
    child text;
    low bigint;
begin
    -- batches are numbered in order: only the last partitions can be missing
    for low in select g * width from generate_series(greatest(0, upto_batch / width - 1), upto_batch / width) g loop
        foreach parent in array array['pair', 'download', 'score', 'embedding', 'opt_out', 'tag'] loop
            child := format('%s_b%s', parent, lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null;
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            -- its rows never change: frozen at the first vacuum, or the last one writes all of its pages once more
            execute format('create table mill.%I (like mill.%I including all) with (autovacuum_freeze_min_age = 0)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child,
                           format('Batches %s to %s of mill.%s', low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;
comment on function mill.ensure_partitions is
    'Makes the partitions of pair, download, score, embedding, opt_out and tag that hold batches up to this one.';

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
        -- it is truncated before long: to mark its pages as all-visible took as much WAL as to write them
        execute format('alter table mill.%I set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)', child);
        execute format('comment on table mill.%I is %L', child, format('Slot %s of the thumbnail ring', i));
        insert into mill.thumbnail_slot (slot) values (i);
    end loop;
end
$$;
comment on function mill.ensure_slots is 'Makes the thumbnail ring at least this many slots long.';

do $$
begin
    for i in 0 .. 15 loop
        execute format('create table mill.seen_url_h%s partition of mill.seen_url'
                       ' for values with (modulus 16, remainder %s)', lpad(i::text, 2, '0'), i);
        execute format('comment on table mill.seen_url_h%s is %L', lpad(i::text, 2, '0'),
                       format('Remainder %s of 16 of mill.seen_url', i));
    end loop;
end
$$;

-- embeddings do not compress: 1.6 times as many rows a second are written without the attempt; partitions are made alike
alter table mill.embedding alter column image set storage external, alter column text set storage external;

select mill.ensure_partitions(0);
select mill.ensure_slots(8::smallint);
insert into mill.setting (only_row) values (1);

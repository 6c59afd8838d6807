-- Partitions of the result tables.

-- A partition holds 1,000 batches, 10 million pairs: LAION-5B's candidates would fill about 5,000. Of pages it holds
-- those of 1,000 WAT files.
create function mill.ensure_partitions(upto bigint, p_column name default 'batch_id') returns void
language plpgsql
as $$
declare
    width constant bigint := 1000;
    parents constant text[] := array(
        select c.relname from pg_partitioned_table p join pg_class c on c.oid = p.partrelid
          join pg_attribute a on a.attrelid = c.oid and a.attnum = p.partattrs[0]
         where c.relnamespace = 'mill'::regnamespace and p.partstrat = 'r' and a.attname = p_column
         order by 1);
    unit constant text := case p_column when 'batch_id' then 'Batches' else 'WAT files' end;
    parent text;
    child text;
    low bigint;
begin
    -- both are numbered in order: only the last partitions can be missing
    for low in select g * width from generate_series(greatest(0, upto / width - 1), upto / width) g loop
        foreach parent in array parents loop
            child := format('%s_%s%s', parent, left(p_column, 1), lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null or p_column = 'batch_id' and mill.detached(low);
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            -- rows never change: they are frozen at the first vacuum, or a last one would write all pages once more
            execute format('create table mill.%I (like mill.%I including all) with (autovacuum_freeze_min_age = 0)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child, format('%s %s to %s of mill.%s', unit, low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;
comment on function mill.ensure_partitions is
    'Makes the partitions that hold rows up to this batch, or this WAT file (p_column wat_id), of every table that is partitioned by range of it.';

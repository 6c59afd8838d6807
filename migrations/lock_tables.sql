-- Locks every table: calls that are under way end first, and those that come wait at their first
-- table, so that none sees half of the old functions and half of the new. mill.worker comes first,
-- since nearly every function of schema api begins with it: what waits there holds nothing else.
-- Of a partitioned table itself alone (a lock a partition would outgrow max_locks_per_transaction).

do $$
begin
    execute (
        select 'lock table ' || string_agg('only ' || c.oid::regclass, ', ' order by c.relname <> 'worker', c.relname)
          from pg_class c
         where c.relnamespace in ('mill'::regnamespace, 'inbox'::regnamespace)
           and c.relkind in ('r', 'p') and not c.relispartition);
end
$$;

-- Drops views, triggers and routines: they are made anew, as a whole, once the tables have changed.
-- No CASCADE: what others built upon them is theirs, and is named instead.

do $$
declare
    of_rows text;
    views text;
    routines text;
    found record;
    needs text;
begin
    for found in
        select g.tgname, g.tgrelid::regclass as "table" from pg_trigger g join pg_proc p on p.oid = g.tgfoid
         where p.pronamespace = 'mill'::regnamespace and not g.tgisinternal
    loop
        execute format('drop trigger %I on %s', found.tgname, found."table");
    end loop;
    -- each in one statement: they need one another, and no order would do
    select string_agg(p.oid::regprocedure::text, ', ') into of_rows  -- they return rows of views
      from pg_proc p where p.pronamespace = 'report'::regnamespace;
    select string_agg(c.oid::regclass::text, ', ') into views
      from pg_class c where c.relnamespace in ('mill'::regnamespace, 'report'::regnamespace) and c.relkind = 'v';
    select string_agg(p.oid::regprocedure::text, ', ') into routines
      from pg_proc p where p.pronamespace in ('mill'::regnamespace, 'api'::regnamespace);
    begin
        if of_rows is not null then
            execute 'drop routine ' || of_rows;
        end if;
        execute 'drop view ' || views;
        execute 'drop routine ' || routines;
    exception when dependent_objects_still_exist then
        get stacked diagnostics needs = pg_exception_detail;
        raise exception using errcode = 'PM007', message = format(
            '%s: drop what depends on it (keep its definition), migrate, and make it again', replace(needs, E'\n', '; '));
    end;
end
$$;

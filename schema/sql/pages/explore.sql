-- Rights of <db>_explore: the page of releases, of "is mine in it?" and of requests for removal.

do $$
declare
    role constant text := left(current_database(), 40) || '_explore';
begin
    execute format('grant usage on schema api to %I', role);
end
$$;

-- Rights of <db>_viewer: the admin's page for somebody who may look and change nothing.

do $$
declare
    role constant text := left(current_database(), 40) || '_viewer';
begin
    execute format('grant usage on schema api to %I', role);
end
$$;

-- Rights of <db>_live: the public page of the line's progress.

do $$
declare
    role constant text := left(current_database(), 40) || '_live';
begin
    execute format('grant usage on schema api to %I', role);
end
$$;

-- Rows of the closed lists (kinds of work, outcomes, reasons), which are declared in the code.

create function mill.say_version(p_digest text) returns void
language plpgsql
as $$
begin
    execute format('create function mill.version() returns text language sql immutable return %L', p_digest);
    comment on function mill.version is 'sha256 of the script that made the functions and views; pairmill compares it with its own.';
    revoke all on function mill.version from public;
end
$$;
comment on function mill.say_version is 'Makes mill.version(), which returns the digest of these functions and views.';

do $$
declare
    lists constant jsonb := current_setting('pairmill.lists');
begin
    insert into mill.worker_kind (name)
    select * from string_to_table(current_setting('pairmill.worker_kinds'), ',') on conflict do nothing;
    insert into mill.task_kind select * from jsonb_populate_recordset(null::mill.task_kind, lists -> 'task_kind')
    on conflict (name) do update
       set subject = excluded.subject, needs_model = excluded.needs_model, upstream = excluded.upstream, is_replicated = excluded.is_replicated,
           writes_thumbnails = excluded.writes_thumbnails, reads_thumbnails = excluded.reads_thumbnails,
           lease_seconds = excluded.lease_seconds, lease_max_seconds = excluded.lease_max_seconds, worker_kind = excluded.worker_kind;
    insert into mill.drop_reason select * from jsonb_populate_recordset(null::mill.drop_reason, lists -> 'drop_reason')
    on conflict do nothing;
    insert into mill.outcome select * from jsonb_populate_recordset(null::mill.outcome, lists -> 'outcome')
    on conflict (code) do update set name = excluded.name, retry = excluded.retry;
    insert into mill.score_outcome select * from jsonb_populate_recordset(null::mill.score_outcome, lists -> 'score_outcome')
    on conflict (code) do update set name = excluded.name;
end
$$;

-- Grants on the functions that all kinds share, and on the views; a kind's file ends with its own grants.
-- PUBLIC has EXECUTE by default: it is revoked in the transaction that makes a function.

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
    kind text;
begin
    for kind in select name from mill.worker_kind loop
        execute format('grant usage on schema api to %I', prefix || kind);
        perform mill.allow(kind, 'api.register_v1', 'api.me_v1', 'api.drained_v1');
    end loop;
    execute format('grant usage on schema api to %I', prefix || 'disabled');
    perform mill.allow('disabled', 'api.register_v1', 'api.me_v1');
    for kind in select distinct worker_kind from mill.task_kind loop
        perform mill.allow(kind, 'api.claim_v1', 'api.heartbeat_v1', 'api.release_v1', 'api.fail_v1');
    end loop;
    perform mill.allow('steward', 'api.accept_next_v1', 'api.judge_replications_v1', 'api.watchdog_v1', 'api.sweep_gold_questions_v1', 'api.expire_leases_v1',
                       'api.sweep_inbox_v1', 'api.sweep_host_files_v1', 'api.empty_slots_v1', 'api.metrics_v1', 'api.ensure_partitions_v1');
    execute format('grant usage on schema report to %I', prefix || 'researcher');
    execute format('grant select on all tables in schema report to %I', prefix || 'researcher');
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.sample_id to %I', prefix || 'researcher');
end
$$;

revoke all on all functions in schema mill, api from public;

-- Who may call what. EXECUTE is PUBLIC's by default: taken away in the transaction that made it.

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
    f record;
    k text;
begin
    for f in select * from (values
        ('api.hello_v1', '{extract,download,score,steward}'::text[]),
        ('api.claim_v1', '{extract,download,score}'),
        ('api.heartbeat_v1', '{extract,download,score}'),
        ('api.release_v1', '{extract,download,score}'),
        ('api.fail_v1', '{extract,download,score}'),
        ('api.complete_v1', '{download,score}'),
        ('api.me_v1', '{extract,download,score,steward}'),
        ('api.drained_v1', '{extract,download,score,steward}'),
        ('api.submit_extract_v1', '{extract}'),
        ('api.submit_extract_v2', '{extract}'),
        ('api.urls_v1', '{download}'),
        ('api.submit_download_v1', '{download}'),
        ('api.submit_download_v2', '{download}'),
        ('api.opt_outs_v1', '{download}'),
        ('api.submit_opt_outs_v1', '{download}'),
        ('api.thumbnails_v1', '{score}'),
        ('api.thumbnails_v2', '{score}'),
        ('api.submit_score_v1', '{score}'),
        ('api.submit_score_v2', '{score}'),
        ('api.taggers_v1', '{score}'),
        ('api.weights_v1', '{score}'),
        ('api.embeddings_v1', '{score}'),
        ('api.accept_next_v1', '{steward}'),
        ('api.accept_next_v2', '{steward}'),
        ('api.merge_number_v1', '{steward}'),
        ('api.known_keys_v1', '{steward}'),
        ('api.staged_keys_v1', '{steward}'),
        ('api.close_batches_v1', '{steward}'),
        ('api.judge_checks_v1', '{steward}'),
        ('api.watchdog_v1', '{steward}'),
        ('api.sweep_canaries_v1', '{steward}'),
        ('api.expire_leases_v1', '{steward}'),
        ('api.sweep_inbox_v1', '{steward}'),
        ('api.sweep_host_files_v1', '{steward}'),
        ('api.empty_slots_v1', '{steward}'),
        ('api.metrics_v1', '{steward}'),
        ('api.ensure_partitions_v1', '{steward}')
    ) as x (name, kinds) loop
        foreach k in array f.kinds loop
            execute format('grant execute on function %s to %I', f.name, prefix || k);
        end loop;
    end loop;
    foreach k in array array['extract', 'download', 'score', 'steward'] loop
        execute format('grant usage on schema api to %I', prefix || k);
    end loop;
    execute format('grant usage on schema inbox to %I, %I', prefix || 'extract', prefix || 'score');
    -- not on the column worker: the server fills it in, so nobody forges another's rows
    execute format('grant insert (lease_id, ordinal, url_key, url, text, language, language_probability, license, link_kind)'
                   ' on inbox.pair to %I', prefix || 'extract');
    execute format('grant insert (lease_id, part, n, outcome, similarity, image, text, text_tokens) on inbox.score to %I', prefix || 'score');
    execute format('grant insert (lease_id, part, model_id, n, label, value) on inbox.tag to %I', prefix || 'score');
    execute format('grant usage on schema report to %I', prefix || 'researcher');
    execute format('grant select on all tables in schema report to %I', prefix || 'researcher');
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.sample_id to %I', prefix || 'researcher');
end
$$;

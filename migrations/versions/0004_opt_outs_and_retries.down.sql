-- The evidence of opt-outs is lost; what the older code has no name for gets the nearest.

drop view report.opt_out;
drop view report.outcome;
drop function mill.retry_outcomes(text[], bigint, bigint, boolean);
drop function mill.prove_worker(text, boolean);
drop function api.sweep_host_files_v1();
drop function api.opt_outs_v1(bigint);
drop function api.submit_opt_outs_v1(bigint, text[], text[], smallint[], text[], real[]);

create or replace function api.submit_download_v1(
    p_lease_id bigint,
    p_part integer,
    p_positions integer[],
    p_outcome smallint[],
    p_http_status smallint[],
    p_bytes integer[],
    p_width integer[],
    p_height integer[],
    p_md5 uuid[],
    p_sha256 bytea[],
    p_dhash bigint[],
    p_thumbnail_positions integer[],
    p_thumbnails bytea[]
) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select api.submit_download_v2(p_lease_id, p_part, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height,
                                  p_md5, p_sha256, p_dhash, p_thumbnail_positions, p_thumbnails, '{}', '{}', '{}', '{}', '{}')
$$;
comment on function api.submit_download_v1 is 'submit_download_v2 of a worker that knows no opt-outs.';

drop function api.submit_download_v2(bigint, integer, integer[], smallint[], smallint[], integer[], integer[], integer[], uuid[],
    bytea[], bigint[], integer[], bytea[], integer[], text[], text[], text[], real[]);
drop function mill.origin(text);

create or replace function mill.accept_download(s mill.submission, t mill.task) returns void
language sql
as $$
    insert into mill.download (batch_id, n, attempt, outcome, http_status, bytes, width, height, md5, sha256, dhash, submission_id)
    select t.batch_id, r.n, t.attempt, r.outcome, r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash, s.submission_id
      from mill.submission_download sd,
           unnest(sd.positions, sd.outcome, sd.http_status, sd.bytes, sd.width, sd.height, sd.md5, sd.sha256, sd.dhash)
           as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
     where sd.submission_id = s.submission_id;
    insert into mill.opt_out (batch_id, n, attempt, signal, value, source, read_at, submission_id)
    select t.batch_id, r.n, t.attempt, r.signal, r.value, r.source, r.read_at, s.submission_id
      from mill.submission_download sd, unnest(sd.refused, sd.signal, sd.value, sd.source, sd.read_at) as r (n, signal, value, source, read_at)
     where sd.submission_id = s.submission_id;
    delete from mill.submission_download where submission_id = s.submission_id;
$$;
comment on function mill.accept_download is 'Expands a download submission into rows.';

create or replace function mill.ensure_partitions(upto_batch bigint) returns void
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
        foreach parent in array array['pair', 'download', 'score', 'embedding', 'opt_out'] loop
            child := format('%s_b%s', parent, lpad((low / width)::text, 6, '0'));
            continue when to_regclass('mill.' || child) is not null;
            -- CREATE … PARTITION OF locks the parent against readers; LIKE and ATTACH do not
            execute format('create table mill.%I (like mill.%I including all)', child, parent);
            execute format('alter table mill.%I attach partition mill.%I for values from (%s) to (%s)',
                           parent, child, low, low + width);
            execute format('comment on table mill.%I is %L', child,
                           format('Batches %s to %s of mill.%s', low, low + width - 1, parent));
        end loop;
    end loop;
end
$$;
comment on function mill.ensure_partitions is
    'Makes the partitions of pair, download, score, embedding and opt_out that hold batches up to this one.';

drop table mill.host_file;
drop table mill.opt_out;
alter table mill.submission_download drop column refused, drop column signal, drop column value, drop column source, drop column read_at;
alter table mill.worker drop column proven_at;
alter table mill.setting drop column url_attempts, drop column url_retry_seconds;

update mill.download set outcome = case outcome when 25 then 24 when 26 then 22 else 31 end
 where outcome in (25, 26, 36, 37, 50, 51);
update mill.submission_download
   set outcome = array(select case o when 25 then 24 when 26 then 22 when 36 then 31 when 37 then 31 when 50 then 31 when 51 then 31 else o end
                         from unnest(outcome) with ordinality u (o, place) order by place)
 where outcome && '{25,26,36,37,50,51}'::smallint[];
delete from mill.outcome where code in (25, 26, 36, 37, 50, 51);
alter table mill.outcome drop column retry;

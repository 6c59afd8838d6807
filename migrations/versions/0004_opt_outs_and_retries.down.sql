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
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    id bigint := mill.submitted_before(p_lease_id, p_part);
    rows constant integer := cardinality(p_positions);
    limit_bytes constant integer := (select thumbnail_max_bytes from mill.setting);
begin
    if id is not null then
        return id;
    end if;
    if rows is null or rows = 0 or p_part is null or array_ndims(p_positions) <> 1
       or array[cardinality(p_outcome), cardinality(p_http_status), cardinality(p_bytes), cardinality(p_width),
                cardinality(p_height), cardinality(p_md5), cardinality(p_sha256), cardinality(p_dhash)]
          is distinct from array_fill(rows, array[8]) then
        perform mill.refuse('PM003', 'a submission needs a part number and one to batch_size positions, all arrays of one length');
    end if;
    if cardinality(p_thumbnails) is distinct from cardinality(p_thumbnail_positions) then
        perform mill.refuse('PM003', 'there must be one position for each thumbnail');
    end if;
    -- one pass over what is left to do finds strangers, repeats and what another part covers
    if rows <> (select count(*) from mill.to_download(t) d where d.n = any (p_positions))
       or rows <> (select count(distinct p) from unnest(p_positions) p) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    if exists (
        select
          from unnest(p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash)
               as r (n, outcome, http_status, bytes, width, height, md5, sha256, dhash)
         where not exists (select from mill.outcome o where o.code = r.outcome)
            or r.http_status not between 100 and 599
            or r.bytes < 0 or r.width < 1 or r.height < 1
            or octet_length(r.sha256) <> 32
            or (r.outcome = 0) <> (r.n = any (coalesce(p_thumbnail_positions, '{}')))
            or r.outcome = 0 and num_nulls(r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash) > 0
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a number out of range, or a success without its image');
    end if;
    if exists (
        select from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
         where coalesce(octet_length(image), 0) not between 1 and limit_bytes
            or not n = any (p_positions)
    ) or cardinality(p_thumbnail_positions) <> (select count(distinct p) from unnest(p_thumbnail_positions) p) then
        perform mill.refuse('PM003', format('a thumbnail is empty, above %s bytes, given twice, or of no position here', limit_bytes));
    end if;
    id := mill.receive(t, p_lease_id, p_part, rows);
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash);
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image);
    return id;
end
$$;
comment on function api.submit_download_v1 is
    'Hands over the outcomes of some positions, as parallel arrays, with the thumbnails of the successes. Idempotent by '
    '(lease, part). Refused whole, changing nothing, if anything in it is wrong.';

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
        foreach parent in array array['pair', 'download', 'score', 'embedding'] loop
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
    'Makes the partitions of pair, download, score and embedding that hold batches up to this one.';

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

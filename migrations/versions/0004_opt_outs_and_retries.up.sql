-- Opt-outs with their evidence, outcomes that say whether a retry can help, and retries by outcome.

alter table mill.outcome add column retry boolean default false not null;
alter table mill.outcome alter column retry drop default;
comment on column mill.outcome.retry is 'Whether the same URL may well end otherwise some hours later';
insert into mill.outcome (code, name, retry) values
    (25, 'host_given_up', true), (26, 'certificate_refused', true), (36, 'server_error', true),
    (37, 'retry_later', true), (50, 'opted_out', false), (51, 'opt_out_unknown', true);
update mill.outcome set retry = true
 where name in ('dns_failed', 'connect_failed', 'connect_timeout', 'tls_failed', 'connection_lost', 'timeout',
                'bad_response', 'truncated_image', 'internal_error');

alter table mill.setting add column url_attempts smallint default '3' not null;
alter table mill.setting add column url_retry_seconds integer default '21600' not null;
comment on column mill.setting.url_attempts is '`pairmill retry` queues no URL again that was tried this often';
comment on column mill.setting.url_retry_seconds is 'A URL is tried again no sooner than this after its batch; doubles with each attempt';

alter table mill.worker add column proven_at timestamp with time zone;
comment on column mill.worker.proven_at is 'Since when others rely on what it says a host allows; null while they do not';

alter table mill.submission_download add column refused integer[];
alter table mill.submission_download add column signal text[];
alter table mill.submission_download add column value text[];
alter table mill.submission_download add column source text[];
alter table mill.submission_download add column read_at timestamp with time zone[];
comment on column mill.submission_download.refused is 'n of each row of opt_out; the arrays below are parallel to it';
comment on column mill.submission_download.signal is 'As opt_out.signal';
comment on column mill.submission_download.value is 'As opt_out.value';
comment on column mill.submission_download.source is 'As opt_out.source';
comment on column mill.submission_download.read_at is 'As opt_out.read_at';

CREATE TABLE mill.opt_out (
	batch_id BIGINT NOT NULL, 
	n INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	signal TEXT NOT NULL, 
	value TEXT NOT NULL, 
	source TEXT NOT NULL, 
	read_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	submission_id BIGINT NOT NULL, 
	CONSTRAINT opt_out_pkey PRIMARY KEY (batch_id, n, attempt)
)
 PARTITION BY RANGE (batch_id);
comment on table mill.opt_out is 'Why a URL was not collected: the site''s own words.';
comment on column mill.opt_out.batch_id is 'The batch';
comment on column mill.opt_out.n is 'Position within the batch, from 0';
comment on column mill.opt_out.attempt is 'The download attempt';
comment on column mill.opt_out.signal is 'robots.txt, tdmrep.json, ai.txt, X-Robots-Tag, tdm-reservation or Content-Usage';
comment on column mill.opt_out.value is 'The rule that forbids, at most 500 characters';
comment on column mill.opt_out.source is 'The URL that it was read from';
comment on column mill.opt_out.read_at is 'When it was read';
comment on column mill.opt_out.submission_id is 'The submission that it came with';

CREATE TABLE mill.host_file (
	origin TEXT NOT NULL, 
	file TEXT NOT NULL CONSTRAINT host_file_file_check CHECK (file in ('robots.txt', 'tdmrep.json', 'ai.txt')), 
	worker_id INTEGER NOT NULL, 
	http_status SMALLINT, 
	rules TEXT NOT NULL, 
	read_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	CONSTRAINT host_file_pkey PRIMARY KEY (origin, file, worker_id), 
	CONSTRAINT host_file_worker_id_fkey FOREIGN KEY(worker_id) REFERENCES mill.worker (worker_id)
);
CREATE INDEX host_file_read_at_idx ON mill.host_file (read_at);
comment on table mill.host_file is 'What files of a host said to a worker, for a day: so that each batch need not ask again.';
comment on column mill.host_file.origin is 'scheme://authority of the host, in lower case';
comment on column mill.host_file.file is 'robots.txt, tdmrep.json or ai.txt';
comment on column mill.host_file.worker_id is 'Who read it';
comment on column mill.host_file.http_status is 'Of the answer; null where there was none';
comment on column mill.host_file.rules is 'What of it concerns us; empty where it forbids nothing';
comment on column mill.host_file.read_at is 'When it was read';

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

do $$
begin
    -- every range that has batches, and the next
    perform mill.ensure_partitions(b) from generate_series(0, coalesce((select max(batch_id) from mill.batch), 0) + 500, 1000) b;
end
$$;

create function mill.origin(url text) returns text
language sql immutable parallel safe
return lower(substring(url from '^[^/?#]+//[^/?#]+'));
comment on function mill.origin is 'scheme://authority of a URL, in lower case.';

create function api.opt_outs_v1(p_lease_id bigint)
returns table (origin text, file text, http_status smallint, rules text, age real)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    me mill.worker := mill.me('download');
begin
    return query
    select x.origin, x.file, x.http_status, x.rules, x.age from (
    select k.*, sum(octet_length(k.rules)) over (order by k.origin, k.file) as total from (
    select distinct on (f.origin, f.file)
           f.origin, f.file, f.http_status, f.rules, extract(epoch from now() - f.read_at)::real as age
      from (select distinct mill.origin(d.url) as origin from mill.to_download(t) d) o
      join mill.host_file f on f.origin = o.origin
      join mill.worker w on w.worker_id = f.worker_id
     where f.read_at > now() - interval '1 day'
       and w.disabled_at is null
       and (w.worker_id = me.worker_id or w.proven_at is not null)
     order by f.origin, f.file, f.read_at desc) k) x
     where x.total <= 8000000;
end
$$;
comment on function api.opt_outs_v1 is
    'What is known of the hosts that are left to fetch from under this lease: what this worker read itself, or a proven one, '
    'within a day, up to 8 MB of rules. age: seconds since it was read.';

create function api.submit_opt_outs_v1(
    p_lease_id bigint,
    p_origin text[],
    p_file text[],
    p_http_status smallint[],
    p_rules text[],
    p_age real[]
) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.held(p_lease_id, 'download');
    me mill.worker := mill.me('download');
    kept integer;
begin
    if array[cardinality(p_file), cardinality(p_http_status), cardinality(p_rules), cardinality(p_age)]
       is distinct from array_fill(cardinality(p_origin), array[4])
       or cardinality(p_origin) > (select 3 * batch_size from mill.setting)
       or (select sum(octet_length(r)) from unnest(p_rules) r) > 8000000
       or exists (
        select
          from unnest(p_origin, p_file, p_http_status, p_rules, p_age) as r (origin, file, http_status, rules, age)
         where num_nulls(r.origin, r.file, r.rules, r.age) > 0
            or length(r.origin) > 300 or length(r.rules) > 65536
            or r.file not in ('robots.txt', 'tdmrep.json', 'ai.txt')
            or r.http_status not between 100 and 999
            or not r.age between 0 and 864000
    ) then
        perform mill.refuse('PM003', 'a host''s file is malformed: an unknown name, a number out of range, or too long');
    end if;
    insert into mill.host_file as f (origin, file, worker_id, http_status, rules, read_at)
    select distinct on (r.origin, r.file)
           r.origin, r.file, me.worker_id, r.http_status, r.rules, now() - make_interval(secs => r.age)
      from unnest(p_origin, p_file, p_http_status, p_rules, p_age) as r (origin, file, http_status, rules, age)
      -- of other hosts a worker has nothing to say
     where r.origin in (select mill.origin(p.url) from mill.pair p where p.batch_id = t.batch_id)
     order by r.origin, r.file, r.age
    on conflict (origin, file, worker_id) do update
       set http_status = excluded.http_status, rules = excluded.rules, read_at = excluded.read_at;
    get diagnostics kept = row_count;
    return kept;
end
$$;
comment on function api.submit_opt_outs_v1 is
    'Keeps what files of the batch''s hosts said, for other batches; what is of no host of the batch is left out. Returns how many were kept.';

create function api.submit_download_v2(
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
    p_thumbnails bytea[],
    p_refused integer[],
    p_signal text[],
    p_value text[],
    p_source text[],
    p_age real[]
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
    if p_refused is null or cardinality(p_refused) > rows or cardinality(p_thumbnail_positions) > rows then
        perform mill.refuse('PM003', 'there are more thumbnails or opt-outs than positions');
    end if;
    if array[cardinality(p_signal), cardinality(p_value), cardinality(p_source), cardinality(p_age)]
       is distinct from array_fill(cardinality(p_refused), array[4]) then
        perform mill.refuse('PM003', 'there must be a signal, a value, a source and an age for each position that opted out');
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
            or r.http_status not between 100 and 999  -- some sites say 999
            or r.bytes < 0 or r.width < 1 or r.height < 1
            or octet_length(r.sha256) <> 32
            or (r.outcome = 50) <> (r.n = any (p_refused))
            or (r.outcome = 0) <> (r.n = any (coalesce(p_thumbnail_positions, '{}')))
            or r.outcome = 0 and num_nulls(r.http_status, r.bytes, r.width, r.height, r.md5, r.sha256, r.dhash) > 0
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a number out of range, or a success without its image, or an opt-out without its evidence');
    end if;
    if exists (
        select from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
         where coalesce(octet_length(image), 0) not between 1 and limit_bytes
            or not n = any (p_positions)
    ) or cardinality(p_thumbnail_positions) <> (select count(distinct p) from unnest(p_thumbnail_positions) p) then
        perform mill.refuse('PM003', format('a thumbnail is empty, above %s bytes, given twice, or of no position here', limit_bytes));
    end if;
    if exists (
        select from unnest(p_refused, p_signal, p_value, p_source, p_age) as r (n, signal, value, source, age)
         where num_nulls(r.n, r.signal, r.value, r.source, r.age) > 0
            or length(r.signal) > 50 or length(r.value) > 500 or length(r.source) > 2100
            or not r.age between 0 and 864000
            or not r.n = any (p_positions)
    ) or cardinality(p_refused) <> (select count(distinct p) from unnest(p_refused) p) then
        perform mill.refuse('PM003', 'the evidence of an opt-out is malformed: too long, too old, given twice, or of no position here');
    end if;
    id := mill.receive(t, p_lease_id, p_part, rows);
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha256, p_dhash,
            p_refused, p_signal, p_value, p_source,
            array(select now() - make_interval(secs => age) from unnest(p_age) with ordinality u (age, place) order by place));
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image);
    return id;
end
$$;
comment on function api.submit_download_v2 is
    'Hands over the outcomes of some positions, as parallel arrays, with the thumbnails of the successes. Idempotent by '
    '(lease, part). Refused whole, changing nothing, if anything in it is wrong.';

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

create function api.sweep_host_files_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
begin
    delete from mill.host_file where read_at <= now() - interval '1 day';
    get diagnostics swept = row_count;
    return swept;
end
$$;
comment on function api.sweep_host_files_v1 is 'Deletes what hosts'' files said more than a day ago (RFC 9309, 2.4).';

create function mill.retry_outcomes(
    p_outcomes text[], p_first_batch bigint, p_last_batch bigint, p_at_once boolean,
    out batches bigint, out urls bigint, out busy bigint
)
language plpgsql
as $$
#variable_conflict use_column
begin
    with found as (
        select d.batch_id, array_agg(d.n order by d.n) as positions
          from mill.current_download d
          join mill.outcome o on o.code = d.outcome
          join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
         where d.batch_id between p_first_batch and p_last_batch
           and case when p_outcomes is null then o.retry else o.name = any (p_outcomes) end
           and (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n)
               < (select url_attempts from mill.setting)
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removal r where r.md5 = p.url_key)
         group by d.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ (t.attempt - 1)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, max(x.changed_at) as ended_at, bool_or(x.state <> 'done') as busy
                from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from planned where not busy
         order by batch_id
        on conflict do nothing  -- another's retry came first
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where planned.busy)
      into batches, urls, busy
      from queued;
end
$$;
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts. '
    'busy: batches left out, since a download of theirs is not done.';

create function mill.prove_worker(p_name text, p_proven boolean) returns boolean
language sql
as $$
    update mill.worker set proven_at = case when p_proven then coalesce(proven_at, now()) end where name = p_name returning true
$$;
comment on function mill.prove_worker is 'Whether others rely on what this worker says a host allows. Null where there is no such worker.';

create view report.outcome as select code, name, retry from mill.outcome;
comment on view report.outcome is 'The closed list of how a download ends.';
comment on column report.outcome.code is '0 is success';
comment on column report.outcome.name is 'As report.pair.outcome';
comment on column report.outcome.retry is 'Whether the same URL may well end otherwise some hours later';

create view report.opt_out as
select mill.sample_id(d.batch_id, d.n) as sample_id, d.batch_id, d.n, p.url, x.signal, x.value, x.source, x.read_at
  from mill.current_download d
  join mill.opt_out x on x.batch_id = d.batch_id and x.n = d.n and x.attempt = d.attempt
  join mill.pair p on p.batch_id = d.batch_id and p.n = d.n;
comment on view report.opt_out is 'The pairs that were not collected since their site does not want it, with its words. Name a range of batch_id.';
comment on column report.opt_out.sample_id is 'As report.pair.sample_id';
comment on column report.opt_out.batch_id is 'As report.pair.batch_id';
comment on column report.opt_out.n is 'As report.pair.n';
comment on column report.opt_out.url is 'The URL of the image';
comment on column report.opt_out.signal is 'robots.txt, tdmrep.json, ai.txt, X-Robots-Tag, tdm-reservation or Content-Usage';
comment on column report.opt_out.value is 'The rule that forbids';
comment on column report.opt_out.source is 'The URL that the rule was read from';
comment on column report.opt_out.read_at is 'When it was read';

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
begin
    execute format('grant execute on function api.submit_download_v2, api.opt_outs_v1, api.submit_opt_outs_v1 to %I', prefix || 'download');
    execute format('grant execute on function api.sweep_host_files_v1 to %I', prefix || 'steward');
    execute format('grant select on report.outcome, report.opt_out to %I', prefix || 'researcher');
end
$$;

-- Downloads: URLs out, outcomes and thumbnails in.

-- By the task of the evidence's submission: what is open is known without the pairs, whose rows are the URLs.
create function mill.refused_by_page(p_batch_id bigint) returns table (n integer)
language sql stable
as $$
    select o.n
      from mill.opt_out o
      join mill.submission s using (submission_id)
      join mill.task t on t.task_id = s.task_id and t.kind = 'extract'
     where o.batch_id = p_batch_id
$$;
comment on function mill.refused_by_page is 'Positions of a batch whose page opts out: their evidence came with the pair, and no worker is asked for them.';

create function mill.covered(t mill.task) returns table (n integer)
language sql stable
as $$
    select d.n from mill.download d where d.batch_id = t.batch_id and d.attempt = t.attempt
    union all
    select r.n from mill.refused_by_page(t.batch_id) r
    union all
    select f.n from mill.refetch f where f.batch_id = t.batch_id and f.attempt = t.attempt
    union all
    select unnest(sd.positions)
      from mill.submission s
      join mill.submission_download sd using (submission_id)
     where s.task_id = t.task_id and s.state = 'received'
$$;
comment on function mill.covered is 'Positions of a download task that are not asked for: a received or accepted submission covers them, or their page opts out.';

create function mill.to_download(t mill.task) returns table (n integer, url text)
language sql stable
as $$
    select p.n, p.url
      from mill.pair p
     where p.batch_id = t.batch_id
       and (t.positions is null or p.n = any (t.positions))
       and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
       and p.n not in (select c.n from mill.covered(t) c)
       and p.n not in (select r.n from mill.removed_positions(t.batch_id) r)
$$;
comment on function mill.to_download is
    'Positions of a download task that no received or accepted submission covers yet, and no removal names. One that was removed after its URL '
    'was handed out may still be submitted: mill.are_open.';

create function api.urls_v1(p_lease_id bigint) returns table (n integer, url text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, 'download');
begin
    if not exists (select from mill.assignment where lease_id = p_lease_id) then
        return query select d.n, d.url from mill.to_download(t) d order by d.n;
        return;
    end if;
    perform mill.shuffle(t, p_lease_id);
    return query
    select h.place::integer - 1, coalesce(d.url, c.url)
      from mill.assignment a
      cross join unnest(a.positions) with ordinality as h (n, place)
      left join mill.to_download(t) d on d.n = h.n
      left join unnest(a.gold_places, a.gold_question_ids) as k (place, gold_question_id) on k.place = h.place - 1
      left join mill.gold_question c on c.gold_question_id = k.gold_question_id
     where a.lease_id = p_lease_id and coalesce(d.url, c.url) is not null
     order by h.place;
end
$$;
comment on function api.urls_v1 is
    'URLs left to fetch under this lease, without those that an earlier holder submitted. n is the number under which a URL''s '
    'outcome is submitted; gold questions may be among the URLs, in no place that shows it.';

create function mill.origin(url text) returns text
language sql immutable parallel safe
return lower(substring(url from '^[^/?#]+//[^/?#]+'));
comment on function mill.origin is 'scheme://authority of a URL, in lower case.';

-- Rules from an unproven worker are given to that worker alone: its "allowed" would open every host for everybody, its
-- "forbidden" would close them, and be repeated by the workers that believed it.
create function api.opt_outs_v1(p_lease_id bigint)
returns table (origin text, file text, http_status smallint, rules text, age real)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task := mill.require_lease(p_lease_id, 'download');
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
    'Rules of the hosts that are left to fetch from under this lease, as this worker or a proven one read them '
    'within a day, up to 8 MB. age: seconds since they were read.';

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
    t mill.task := mill.require_lease(p_lease_id, 'download');
    me mill.worker := mill.me('download');
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
      -- rules of hosts outside the batch are left out
     where r.origin in (select mill.origin(p.url) from mill.pair p where p.batch_id = t.batch_id)
     order by r.origin, r.file, r.age
    on conflict (origin, file, worker_id) do update
       set http_status = excluded.http_status, rules = excluded.rules, read_at = excluded.read_at;
    return cardinality(p_origin);  -- the number kept would tell which hosts are of gold questions
end
$$;
comment on function api.submit_opt_outs_v1 is
    'Keeps the rules in files of the batch''s hosts, for other batches; those of other hosts are left out. Returns how many were given.';

create function mill.are_open(t mill.task, p_positions integer[]) returns boolean
language sql stable
as $$
    select not exists (
        select from unnest(p_positions) p (n)
         where p.n not between 0 and (select pair_count - 1 from mill.batch where batch_id = t.batch_id))
       and (t.positions is null or not exists (select unnest(p_positions) except select unnest(t.positions)))
       -- INTERSECT: a join was planned as a loop of 1,000 by 9,000 once the statistics knew a long history: 87 ms, and 4 ms so
       and not exists (select unnest(p_positions) intersect select c.n from mill.covered(t) c)
$$;
comment on function mill.are_open is 'Whether positions are all of a download task and covered by no submission yet.';

create function api.submit_download_v1(
    p_lease_id bigint,
    p_part integer,
    p_positions integer[],
    p_outcome smallint[],
    p_http_status smallint[],
    p_bytes integer[],
    p_width integer[],
    p_height integer[],
    p_md5 uuid[],
    p_sha1 bytea[],
    p_sha256 bytea[],
    p_dhash bigint[],
    p_pdq bytea[],
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
    t mill.task := mill.require_lease(p_lease_id, 'download');
    id bigint := mill.earlier_submission(p_lease_id, p_part);
    rows constant integer := cardinality(p_positions);
    limit_bytes constant integer := (select thumbnail_max_bytes from mill.setting);
    stranger constant text := 'a position is not of this task, is given twice, or was submitted already';
    n integer[];
begin
    if id is not null then
        return id;
    end if;
    if rows is null or rows not between 1 and (select batch_size + gold_questions_per_lease from mill.setting)
       or p_part is null or array_ndims(p_positions) <> 1
       or array[cardinality(p_outcome), cardinality(p_http_status), cardinality(p_bytes), cardinality(p_width),
                cardinality(p_height), cardinality(p_md5), cardinality(p_sha1), cardinality(p_sha256), cardinality(p_dhash), cardinality(p_pdq)]
          is distinct from array_fill(rows, array[10]) then
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
    -- every refusal of a row comes before gold questions are told from URLs, or refusals would tell them
    if exists (
        select
          from unnest(p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha1, p_sha256, p_dhash, p_pdq)
               as r (n, outcome, http_status, bytes, width, height, md5, sha1, sha256, dhash, pdq)
         where not exists (select from mill.outcome o where o.code = r.outcome)
            or r.http_status not between 100 and 999  -- some sites say 999
            or r.bytes < 0 or r.width < 1 or r.height < 1
            or octet_length(r.sha1) <> 20 or octet_length(r.sha256) <> 32 or octet_length(r.pdq) <> 32
            or (r.outcome = 50) <> (r.n = any (p_refused))
            or (r.outcome = 0) <> (r.n = any (coalesce(p_thumbnail_positions, '{}')))
            or r.outcome = 0 and num_nulls(r.http_status, r.bytes, r.width, r.height, r.md5, r.sha1, r.sha256, r.dhash) > 0
    ) then
        perform mill.refuse('PM003', 'a row is malformed: an unknown outcome, a number out of range, or a success without its image, or an opt-out without its evidence');
    end if;
    if exists (
        select from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
         where coalesce(octet_length(image), 0) not between 1 and limit_bytes
            or not r.n = any (p_positions)
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
    if rows <> (select count(distinct p) from unnest(p_positions) p) then
        perform mill.refuse('PM003', stranger);
    end if;
    if exists (select from mill.assignment where lease_id = p_lease_id) then
        n := mill.take_gold_answers(p_lease_id, p_positions, p_outcome, p_sha256, p_dhash);  -- null at a gold question
        select coalesce(array_agg(m.n), '{}'), coalesce(array_agg(r.image), '{}')
          into p_thumbnail_positions, p_thumbnails
          from unnest(p_thumbnail_positions, p_thumbnails) as r (place, image)
          join unnest(p_positions, n) as m (place, n) using (place) where m.n is not null;
        select coalesce(array_agg(m.n), '{}'), coalesce(array_agg(r.signal), '{}'), coalesce(array_agg(r.value), '{}'),
               coalesce(array_agg(r.source), '{}'), coalesce(array_agg(r.age), '{}')
          into p_refused, p_signal, p_value, p_source, p_age
          from unnest(p_refused, p_signal, p_value, p_source, p_age) as r (place, signal, value, source, age)
          join unnest(p_positions, n) as m (place, n) using (place) where m.n is not null;
        select coalesce(array_agg(r.n), '{}'), coalesce(array_agg(r.outcome), '{}'), coalesce(array_agg(r.http_status), '{}'),
               coalesce(array_agg(r.bytes), '{}'), coalesce(array_agg(r.width), '{}'), coalesce(array_agg(r.height), '{}'),
               coalesce(array_agg(r.md5), '{}'), coalesce(array_agg(r.sha1), '{}'), coalesce(array_agg(r.sha256), '{}'),
               coalesce(array_agg(r.dhash), '{}'), coalesce(array_agg(r.pdq), '{}')
          into p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha1, p_sha256, p_dhash, p_pdq
          from unnest(n, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha1, p_sha256, p_dhash, p_pdq)
               as r (n, outcome, http_status, bytes, width, height, md5, sha1, sha256, dhash, pdq)
         where r.n is not null;
    end if;
    if not mill.are_open(t, p_positions) then
        perform mill.refuse('PM003', stranger);
    end if;
    id := mill.record_submission(t, p_lease_id, p_part, cardinality(p_positions), cardinality(array_positions(p_outcome, 0::smallint)));
    insert into mill.submission_download
    values (id, p_positions, p_outcome, p_http_status, p_bytes, p_width, p_height, p_md5, p_sha1, p_sha256, p_dhash, p_pdq,
            p_refused, mill.plain(p_signal), mill.plain(p_value), mill.plain(p_source),
            array(select now() - make_interval(secs => age) from unnest(p_age) with ordinality u (age, place) order by place));
    insert into mill.thumbnail (slot, batch_id, n, attempt, submission_id, image)
    select t.slot, t.batch_id, r.n, t.attempt, id, r.image
      from unnest(p_thumbnail_positions, p_thumbnails) as r (n, image)
     where not t.is_replica;  -- of a replica only the hashes are compared
    return id;
end
$$;
comment on function api.submit_download_v1 is
    'Hands over the outcomes of some positions, as parallel arrays, with the thumbnails of the successes. Idempotent by '
    '(lease, part). Refused whole, changing nothing, if anything in it is wrong.';

create function mill.next_attempt(p_batch_id bigint) returns smallint
language plpgsql
as $$
begin
    perform from mill.batch where batch_id = p_batch_id for no key update;  -- one new attempt after another
    return (select max(attempt) + 1 from mill.task where kind = 'download' and batch_id = p_batch_id);
end
$$;
comment on function mill.next_attempt is 'The number of a batch''s next download attempt, reserved until the end of the transaction.';

create function mill.download_payload(t mill.task, p_lease_id bigint) returns jsonb
language plpgsql
as $$
begin
    if t.for_model_id is not null and t.positions is null then
        t.positions := mill.choose_backfill(t);
    end if;
    if not t.is_replica and (mill.me()).streak is not null then
        perform mill.assign_gold_questions(t, p_lease_id);
    end if;
    return jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt);
end
$$;
comment on function mill.download_payload is 'Batch and attempt, for the worker; hides gold questions among its URLs, and chooses those of a backfill.';

-- The sum of submissions first: it reads a few rows, to_download 10,000.
create function mill.download_left(t mill.task) returns bigint
language plpgsql stable
as $$
begin
    if (select coalesce(sum(row_count), 0) from mill.submission where task_id = t.task_id and state in ('received', 'accepted'))
           = coalesce(cardinality(t.positions),
                      (select pair_count from mill.batch where batch_id = t.batch_id)
                      - (select count(*) from mill.refused_by_page(t.batch_id))) then
        return 0;
    end if;
    return (select count(*) from mill.to_download(t));
end
$$;
comment on function mill.download_left is 'How many positions of a download task no received or accepted submission covers.';

create function mill.download_accept(s mill.submission, t mill.task) returns void
language sql
as $$
    insert into mill.download (batch_id, n, attempt, outcome, http_status, bytes, width, height, md5, sha1, sha256, dhash, pdq, submission_id)
    select t.batch_id, r.n, t.attempt, r.outcome, r.http_status, r.bytes, r.width, r.height, r.md5, r.sha1, r.sha256, r.dhash, r.pdq, s.submission_id
      from mill.submission_download sd,
           unnest(sd.positions, sd.outcome, sd.http_status, sd.bytes, sd.width, sd.height, sd.md5, sd.sha1, sd.sha256, sd.dhash, sd.pdq)
           as r (n, outcome, http_status, bytes, width, height, md5, sha1, sha256, dhash, pdq)
     where sd.submission_id = s.submission_id and (t.for_model_id is null or r.outcome = 50);
    -- of a backfill only a site's new wish counts: an image that is not to be had today was had before
    select mill.keep_refetches(s, t) where t.for_model_id is not null;
    insert into mill.opt_out (batch_id, n, attempt, signal, value, source, read_at, submission_id)
    select t.batch_id, r.n, t.attempt, r.signal, r.value, r.source, r.read_at, s.submission_id
      from mill.submission_download sd, unnest(sd.refused, sd.signal, sd.value, sd.source, sd.read_at) as r (n, signal, value, source, read_at)
     where sd.submission_id = s.submission_id;
    select mill.name_images(s, t);
    delete from mill.submission_download where submission_id = s.submission_id;
$$;
comment on function mill.download_accept is 'Expands a download submission into rows.';

create function mill.download_reject(s mill.submission, t mill.task) returns void
language sql
as $$
    delete from mill.submission_download where submission_id = s.submission_id
$$;
comment on function mill.download_reject is 'Deletes a submission''s outcomes.';

create function mill.download_done(t mill.task) returns void
language plpgsql
as $$
begin
    if t.for_model_id is null then
        perform mill.queue_scoring(t.batch_id, t.attempt, model_id) from mill.model
          where kind = 'clip' and retired_at is null order by model_id;
    else
        perform mill.queue_refetched(t);
    end if;
    perform mill.draw_replications(t);
end
$$;
comment on function mill.download_done is 'Queues the scoring of a downloaded batch by each active model, and draws replications.';

-- As a new attempt at its positions: outcomes are appended, never changed.
create function mill.download_withdraw(s mill.submission, t mill.task, why text) returns void
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), array_agg(d.n order by d.n)
      from mill.download d
     where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = s.submission_id
       and t.for_model_id is null  -- the earlier download counts again
    having count(*) > 0
$$;
comment on function mill.download_withdraw is 'Queues the URLs of a withdrawn submission again, as a new attempt at their positions.';

select mill.allow('download', 'api.urls_v1', 'api.opt_outs_v1', 'api.submit_opt_outs_v1', 'api.submit_download_v1', 'api.complete_v1');

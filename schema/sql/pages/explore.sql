-- Rights of <db>_explore: the page of releases, of "is mine in it?" and of requests for removal.
--
-- This login belongs to a page that anybody may ask. It reads no table: a handful of functions answer for some keys or ids at a
-- time, from indexes, and one of them takes a request. None tells a removed pair from one that was never there: whoever has a
-- list's picture, or a name out of somebody's request, could else ask the page whether it is on it.

create function mill.hidden(p_ids bigint[]) returns setof bigint
language sql stable
as $$
    with asked as materialized (
        select distinct i.id, i.id >> 14 as batch_id, (i.id & 16383)::integer as n from unnest(p_ids) as i (id) where i.id >= 0
    )
    select a.id from asked a where exists (select from mill.removed_pair r where r.batch_id = a.batch_id and r.n = a.n)
    union
    select a.id from asked a join mill.cover_row c on c.sample_id = a.id
    union
    select a.id
      from asked a
      join mill.pair p on p.batch_id = a.batch_id and p.n = a.n
      join mill.withdrawn w on w.submission_id = p.submission_id
    union
    -- of an image that was withdrawn, and that no other download gave
    select a.id
      from asked a
      join mill.download d on d.batch_id = a.batch_id and d.n = a.n and d.outcome = 0
      join mill.withdrawn w on w.submission_id = d.submission_id
     where not exists (select from mill.download c
                        where c.batch_id = d.batch_id and c.n = d.n and c.md5 = d.md5
                          and not exists (select from mill.withdrawn x where x.submission_id = c.submission_id))
$$;
comment on function mill.hidden is 'Of these SAMPLE_IDs those that no release may hold any more: removed, withdrawn or cover rows.';

create function api.hidden_v1(p_ids bigint[]) returns setof bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(p_ids) > 1000 then
        perform mill.refuse('PM003', format('%s ids were asked for at once, and 1,000 are the most that may be', cardinality(p_ids)));
    end if;
    return query select h from mill.hidden(p_ids) h;
end
$$;
comment on function api.hidden_v1 is 'Of at most 1,000 SAMPLE_IDs those that no page may show any more; which of removed, withdrawn or cover row they are is not told.';

create function api.known_urls_v1(p_keys uuid[])
returns table (url_key uuid, sample_id bigint, state text, outcome text, signal text, since timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(p_keys) > 500 then
        perform mill.refuse('PM003', format('%s keys were asked for at once, and 500 are the most that may be', cardinality(p_keys)));
    end if;
    return query
    with found as materialized (
        select k.url_key, k.batch_id, k.n, mill.sample_id(k.batch_id, k.n) as id from mill.seen_url k where k.url_key = any (p_keys)
    ), hidden as materialized (
        select h from mill.hidden(array(select f.id from found f)) h
    )
    select f.url_key, f.id,
           case when o.code is null then 'waiting' when o.code = 0 then 'downloaded' when x.signal is not null then 'opted_out' else 'failed' end,
           o.name, x.signal, b.opened_at
      from found f
      join mill.batch b using (batch_id)
      left join mill.current_download d on d.batch_id = f.batch_id and d.n = f.n
      left join mill.outcome o on o.code = d.outcome
      left join mill.opt_out x on x.batch_id = d.batch_id and x.n = d.n and x.attempt = d.attempt
     where f.id not in (select h from hidden);
end
$$;
comment on function api.known_urls_v1 is
    'Of at most 500 md5s of URLs the known ones: what became of each. A pair that is hidden is answered as one that was never there.';

-- A visitor's image is compared here, so that no hash of anybody's leaves the database.
create function api.compare_image_v1(p_ids bigint[], p_dhash bigint, p_pdq bytea)
returns table (sample_id bigint, dhash_bits integer, pdq_bits integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(p_ids) > 200 or octet_length(p_pdq) <> 32 then
        perform mill.refuse('PM003', 'an image is compared with at most 200 others, by a dHash and a PDQ of 32 bytes');
    end if;
    return query
    with asked as materialized (
        select distinct i.id from unnest(p_ids) as i (id) where i.id >= 0
    ), hidden as materialized (
        select h from mill.hidden(p_ids) h
    )
    select a.id, bit_count((d.dhash # p_dhash)::bit(64))::integer,
           bit_count(('x' || encode(d.pdq, 'hex'))::bit(256) # ('x' || encode(p_pdq, 'hex'))::bit(256))::integer
      from asked a
      join mill.current_download d on d.batch_id = a.id >> 14 and d.n = (a.id & 16383)::integer
     where d.outcome = 0 and a.id not in (select h from hidden);
end
$$;
comment on function api.compare_image_v1 is
    'In how many bits of dHash (64) and PDQ (256) an image differs from those of at most 200 SAMPLE_IDs; null of one without; not of hidden ones.';

-- `pairmill why` in one row, without the names of workers and without any pair's but this one. Asked by URL, which a release shows or
-- the visitor knows: SAMPLE_IDs are counted up, and whoever tried them all would have the URLs that no release took.
create function api.evidence_v1(p_url_key uuid, p_manifests text[] default '{}') returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    b bigint;
    i integer;
    found jsonb;
begin
    if cardinality(p_manifests) > 50 then
        perform mill.refuse('PM003', 'more than 50 releases were asked for at once');
    end if;
    select k.batch_id, k.n into b, i from mill.seen_url k where k.url_key = p_url_key;
    if b is null or exists (select from mill.hidden(array[mill.sample_id(b, i)])) then
        return null;
    end if;
    select jsonb_build_object(
               'sample_id', mill.sample_id(b, i), 'url', p.url, 'text', p.text, 'language', coalesce(p.language, 'nolang'),
               'language_probability', p.language_probability, 'language_detector', f.language_detector, 'license', p.license,
               'text_weight', mill.text_weight(p.text), 'link_kind', t.link_kind, 'in_open_batch', t.closed_at is null,
               'batch_id', p.batch_id, 'n', p.n, 'wat', f.location, 'crawl', c.name, 'page', g.url, 'crawled_at', g.crawled_at)
      into found
      from mill.pair p
      join mill.batch t using (batch_id)
      left join mill.wat_file f using (wat_id)
      left join mill.crawl c using (crawl_id)
      left join mill.page g on g.wat_id = p.wat_id and g.submission_id = p.submission_id and g.page = p.page
     where p.batch_id = b and p.n = i;
    if found is null then
        return null;
    end if;
    return found || jsonb_build_object(
        'downloads', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'attempt', d.attempt, 'outcome', o.name, 'http_status', d.http_status, 'bytes', d.bytes, 'width', d.width, 'height', d.height,
                       'md5', d.md5, 'sha1', encode(d.sha1, 'hex'), 'sha256', encode(d.sha256, 'hex'), 'dhash', d.dhash, 'pdq', encode(d.pdq, 'hex'),
                       'at', s.received_at, 'withdrawn', w.submission_id is not null,
                       'counts', e.attempt is not null and e.submission_id = d.submission_id,
                       'signal', x.signal, 'value', x.value, 'source', x.source, 'read_at', x.read_at) order by d.attempt), '[]')
              from mill.download d
              join mill.outcome o on o.code = d.outcome
              left join mill.submission s using (submission_id)
              left join mill.withdrawn w using (submission_id)
              left join mill.current_download e on e.batch_id = d.batch_id and e.n = d.n and e.attempt = d.attempt
              left join mill.opt_out x on x.batch_id = d.batch_id and x.n = d.n and x.attempt = d.attempt
             where d.batch_id = b and d.n = i),
        'scores', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'model_id', m.model_id, 'name', m.name, 'pretrained', m.pretrained, 'outcome', o.name, 'similarity', s.similarity,
                       'text_tokens', s.text_tokens) order by m.model_id), '[]')
              from mill.model m
              left join mill.current_score s on s.model_id = m.model_id and s.batch_id = b and s.n = i
              left join mill.score_outcome o on o.code = s.outcome
             where m.kind = 'clip' and (m.retired_at is null or s.outcome is not null)),
        'tags', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'model_id', m.model_id, 'name', m.name, 'base_model_id', m.base_model_id, 'kind', m.kind, 'value', g.value,
                       'label', coalesce(m.labels[g.label + 1], g.text)) order by m.model_id), '[]')
              from mill.current_tag g
              join mill.model m using (model_id)
             where g.batch_id = b and g.n = i),
        'releases', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'release_id', r.release_id, 'name', r.name, 'version', r.version, 'built_at', r.built_at, 'manifest_sha256', r.manifest_sha256,
                       'recipe', r.recipe, 'methods', r.methods, 'duplicates', encode(q.duplicates, 'base64'),
                       'decision', case when i < octet_length(q.decisions) then coalesce(r.words[get_byte(q.decisions, i)], 'no candidate') end)
                       order by r.name, r.release_id), '[]')
              from report.release v
              join mill.release r using (release_id)
              left join mill.release_batch q on q.release_id = r.release_id and q.batch_id = b
             where v.is_newest or r.manifest_sha256 = any (p_manifests)));
end
$$;
comment on function api.evidence_v1 is
    'What is known of the pair with a URL of this md5: where it is from, its downloads, scores and tags, and what the newest releases, and those of these manifests, '
    'decided of it. Null where there is none here, and of a hidden one.';

create function api.request_removal_v1(
    p_entries text[], p_of_pages boolean, p_requester text, p_evidence text, p_attachment text[], p_token_sha256 bytea,
    out request_id bigint, out due_at timestamptz
)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    a_day constant integer := 1000;  -- of at most 30,000 characters: 30 MB a day
    sample bigint;
begin
    if coalesce(cardinality(p_entries), 0) not between 1 and 100 or array_position(p_entries, null) is not null then
        perform mill.refuse('PM003', 'a request names 1 to 100 entries');
    elsif octet_length(p_token_sha256) is distinct from 32 or p_of_pages is null then
        perform mill.refuse('PM003', 'a request has a token');
    elsif length(trim(p_requester)) not between 1 and 300 or p_requester is null then
        perform mill.refuse('PM003', 'who asks has 1 to 300 characters');
    elsif coalesce(length(p_evidence), 0) > 4000 then
        perform mill.refuse('PM003', 'the reason has at most 4,000 characters');
    elsif length(array_to_string(p_entries, '')) > 10000 then
        perform mill.refuse('PM003', 'the entries have at most 10,000 characters together');
    elsif coalesce(cardinality(p_attachment), 0) > 500 or length(array_to_string(p_attachment, '')) > 15000 then
        perform mill.refuse('PM003', 'the attachment has at most 500 lines and 15,000 characters');
    elsif (select count(*) from mill.removal_request q where q.origin = 'web' and q.received_at > now() - interval '1 day') >= a_day then
        perform mill.refuse('PM007', format('%s requests came within a day, and no more are taken', a_day));
    end if;
    for sample in select substr(e, 8)::bigint from unnest(p_entries) e where e ~ '^sample:\d{1,18}$' loop
        if not exists (select from mill.batch b where b.batch_id = sample >> 14 and b.pair_count > (sample & 16383)) then
            perform mill.refuse('PM003', format('no pair has the SAMPLE_ID %s', sample));
        end if;
    end loop;
    insert into mill.removal_request as r (entries, of_pages, requester, evidence, attachment, due_at, token_sha256, origin)
    values (mill.plain(p_entries), p_of_pages, mill.plain(trim(p_requester)), mill.plain(coalesce(p_evidence, '')),
            mill.plain(coalesce(p_attachment, '{}')), now() + interval '30 days', p_token_sha256, 'web')
    returning r.request_id, r.due_at into request_id, due_at;
end
$$;
comment on function api.request_removal_v1 is
    'Notes a request for removal that came through the page: bounded in size, and in number within a day (PM007). Due in 30 days.';

create function api.removal_request_v1(p_token_sha256 bytea)
returns table (request_id bigint, state text, entries text[], of_pages boolean, received_at timestamptz, due_at timestamptz, decided_at timestamptz, why text, pairs bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select q.request_id, q.state, q.entries, q.of_pages, q.received_at, q.due_at, q.decided_at, q.why,
           (select count(distinct (named.batch_id, named.n))
              from (select p.batch_id, p.n from mill.removed_pair p join mill.removal r using (removal_id)
                     where r.removal_id = any (q.removals) or r.spelling_of = any (q.removals) limit 100000) named)
      from mill.removal_request q
     where q.token_sha256 = p_token_sha256
$$;
comment on function api.removal_request_v1 is 'A request, for whoever has its token: never who asked, nor their reason.';

do $$
declare
    role constant text := left(current_database(), 40) || '_explore';
begin
    execute format('grant usage on schema api to %I', role);
    perform mill.allow('explore', 'api.hidden_v1', 'api.known_urls_v1', 'api.compare_image_v1', 'api.evidence_v1', 'api.request_removal_v1', 'api.removal_request_v1');
end
$$;

-- Extraction: WAT files and what workers hand over of them; merge.sql makes pairs of it.

create function mill.add_wat(
    p_crawl text,
    p_locations text[],
    p_link_kinds text[] default '{image}',
    p_language_detector text default 'cld3'
) returns integer
language sql
as $$
    with the_crawl as (
        insert into mill.crawl (name) select p_crawl where p_crawl is not null
        on conflict (name) do update set name = excluded.name
        returning crawl_id
    ), added as (
        insert into mill.wat_file (crawl_id, location, link_kinds, language_detector)
        select (select crawl_id from the_crawl), l.location, p_link_kinds, p_language_detector
          from (select location, min(ordinality) as place from unnest(p_locations) with ordinality u (location, ordinality)
                 group by location) l
         order by l.place
        on conflict (location) where removed_at is null do nothing
        returning wat_id
    ), queued as (
        insert into mill.task (kind, wat_id) select 'extract', wat_id from added order by wat_id returning 1
    )
    select count(*)::integer from queued
$$;
comment on function mill.add_wat is 'Adds WAT files, and their extract tasks; those known already are left alone. Returns how many were new.';

create function api.submit_extract_v1(
    p_lease_id bigint,
    p_rows integer,
    p_link_kind text[],
    p_stage text[],
    p_name text[],
    p_count bigint[]
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    t mill.task;
    id bigint := mill.earlier_submission(p_lease_id, 0);
    rows_of jsonb;
    wrong record;
begin
    -- before the lease is required: a first call ended it, and its answer may have been lost
    if id is not null and exists (
        select from mill.submission s where s.submission_id = id and s.worker_id = (mill.me('extract')).worker_id) then
        return id;
    end if;
    t := mill.require_lease(p_lease_id, 'extract');
    if cardinality(p_stage) > 1000 or exists (
        select from unnest(p_link_kind, p_stage, p_name, p_count) as x (k, s, n, c)
         where k is null or s is null or n is null or c is null or length(n) > 200
            or c not between 0 and 1000000000  -- a sum near the end of bigint would stop the merges of everybody
            or s not in ('records', 'links', 'bad_record', 'ended_early', 'dropped', 'duplicate', 'attribute')
            or (s in ('links', 'dropped', 'duplicate', 'attribute')) <> (k <> '')
            or k <> '' and k <> all ((select f.link_kinds from mill.wat_file f where f.wat_id = t.wat_id)::text[])
            or s = 'dropped' and not exists (select from mill.drop_reason d where d.name = x.n)
    ) then
        perform mill.refuse('PM003', 'a count is malformed: an unknown stage, link kind or drop reason, or a number below 0 or above 10^9; or there are more than 1,000');
    end if;
    select coalesce(jsonb_object_agg(r.link_kind, r.n), '{}') into rows_of
      from (select i.link_kind, count(*) as n from inbox.pair i
             where i.lease_id = p_lease_id and i.worker = session_user group by i.link_kind) r;
    if p_rows is distinct from (select coalesce(sum(value::bigint), 0) from jsonb_each_text(rows_of)) then
        perform mill.refuse('PM003', format('%s rows were announced, and another number was copied under lease %s', p_rows, p_lease_id));
    end if;
    select kind, c.links, coalesce((rows_of ->> kind)::bigint, 0) as kept, c.gone into wrong
      from (select k, sum(n) filter (where s = 'links') as links, coalesce(sum(n) filter (where s in ('dropped', 'duplicate')), 0) as gone
              from unnest(p_link_kind, p_stage, p_count) as x (k, s, n) where k <> '' group by k) c
      full join jsonb_object_keys(rows_of) r (kind0) on r.kind0 = c.k,
           lateral (select coalesce(c.k, r.kind0) as kind) named
     where c.links is distinct from coalesce((rows_of ->> kind)::bigint, 0) + coalesce(c.gone, 0)
     limit 1;
    if found then
        perform mill.refuse('PM003', format('the counts do not add up: %s %s links are not %s kept and %s dropped or duplicates',
                                            coalesce(wrong.links, 0), wrong.kind, wrong.kept, coalesce(wrong.gone, 0)));
    end if;
    -- No unique index says this: a session that copies under another's lease would hold up the lease's holder until it is refused.
    -- EXCEPT is never a nested loop, whatever the statistics of an inbox are at the moment.
    if exists (select from inbox.page g where g.lease_id = p_lease_id and g.worker = session_user group by g.page having count(*) > 1) then
        perform mill.refuse('PM003', format('a page was copied twice under lease %s', p_lease_id));
    end if;
    if exists (select i.page from inbox.pair i where i.lease_id = p_lease_id and i.worker = session_user and i.page is not null
               except
               select g.page from inbox.page g where g.lease_id = p_lease_id and g.worker = session_user) then
        perform mill.refuse('PM003', format('a row under lease %s names a page that was not copied', p_lease_id));
    end if;
    id := mill.record_submission(t, p_lease_id, 0, p_rows);
    insert into mill.submission_extract (submission_id, link_kind, stage, name, count)
    values (id, p_link_kind, p_stage, p_name, p_count);
    perform mill.end_lease(p_lease_id, 'completed');
    update mill.task set state = 'submitted', changed_at = now() where task_id = t.task_id;
    return id;
end
$$;
comment on function api.submit_extract_v1 is
    'Hands over the rows copied into inbox.pair and inbox.page under this lease, with the counts, and ends the lease. Idempotent. '
    'Refused unless links = rows + dropped + duplicates for every kind of link, and each page that a row names was copied once.';

create function mill.extract_payload(t mill.task, p_lease_id bigint) returns jsonb
language sql
as $$
    select jsonb_build_object('wat_id', f.wat_id, 'location', f.location, 'link_kinds', f.link_kinds,
                              'language_detector', f.language_detector,
                              'last_attempt', t.attempts + 1 >= (select max_attempts from mill.setting))
      from mill.wat_file f where f.wat_id = t.wat_id
$$;
comment on function mill.extract_payload is 'The file, its kinds of links, its language detector, and whether this is the last attempt, for the worker.';

create function mill.extract_left(t mill.task) returns bigint
language sql stable
as $$
    select (mill.whole_submission(t) is null)::integer::bigint
$$;
comment on function mill.extract_left is '1 where the file''s extraction was not submitted, else 0.';

create function mill.extract_accept(s mill.submission, t mill.task) returns void
language sql
as $$
    select mill.merge_extraction(s, t, null, false)
$$;
comment on function mill.extract_accept is 'Merges an extraction, every URL looked up.';

create function mill.extract_reject(s mill.submission, t mill.task) returns void
language sql
as $$
    delete from mill.submission_extract where submission_id = s.submission_id;
    delete from inbox.pair where lease_id = s.lease_id;
    delete from inbox.page where lease_id = s.lease_id;
    -- the attempt that requeue counts is taken off: a withdrawal of another file is no fault of this one
    update mill.task set attempts = attempts - 1 where task_id = s.task_id and not mill.probe_holds(s.lease_id);
$$;
comment on function mill.extract_reject is
    'Deletes a submission''s rows in the inbox, and its counts. No attempt is counted where only its probe had become wrong.';

create function mill.extract_withdraw(s mill.submission, t mill.task, why text) returns void
language plpgsql
as $$
begin
    -- its pairs stay, marked out; their URLs may come in again
    lock table mill.seen_url in share row exclusive mode;  -- as a merge does
    perform nextval('mill.merge_number');
    delete from mill.seen_url k using mill.pair p
     where p.batch_id = any (array(select unnest(x.batch_ids) from mill.extraction_batch x where x.submission_id = s.submission_id))
       and p.submission_id = s.submission_id and k.url_key = p.url_key and k.batch_id = p.batch_id and k.n = p.n;
    if found then
        update mill.setting set freed = freed + 1;  -- no sequence: a probe must see it and the keys gone at once
    end if;
    perform mill.count_crawl(s.submission_id, -1);
    delete from mill.wat_count where submission_id = s.submission_id;
    perform mill.redo_task(t, why);
end
$$;
comment on function mill.extract_withdraw is 'Frees the URLs of an extraction, subtracts its counts and queues the file again.';

select mill.allow('extract', 'api.submit_extract_v1');
select mill.allow_copy('extract', 'inbox.pair', 'lease_id, ordinal, url_key, url, text, language, language_probability, license, link_kind, page');
select mill.allow_copy('extract', 'inbox.page', 'lease_id, page, url, crawled_at, opt_out_signal, opt_out_value');

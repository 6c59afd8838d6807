-- Removals: the pairs that they name, and what no worker is shown of them any more.
--
-- A removal is committed under an exclusive lock of mill.removal, and acceptance holds that table in row share mode. So each
-- acceptance either is over before a removal is there, and the search for known pairs sees its rows; or it sees the removal.

create function mill.hold_removals() returns void
language plpgsql
as $$
begin
    lock table mill.removal in row share mode;
end
$$;
comment on function mill.hold_removals is 'Keeps the list of removals as it is until the end of the transaction.';

-- An anti join, and no DISTINCT or GROUP BY: the planner looks a few pairs up in it, or joins it whole.
create view mill.removed as
select p.batch_id, p.n, r.reason, r.removal_id, r.added_at
  from mill.removed_pair p
  join mill.removal r using (removal_id)
 where not exists (select from mill.removed_pair o where o.batch_id = p.batch_id and o.n = p.n and o.removal_id < p.removal_id);
comment on view mill.removed is 'The removed pairs, one row each: of several removals the oldest.';
comment on column mill.removed.batch_id is 'The batch';
comment on column mill.removed.n is 'Position within the batch, from 0';
comment on column mill.removed.reason is 'Why, in the admin''s words; may be empty';
comment on column mill.removed.removal_id is 'The removal';
comment on column mill.removed.added_at is 'When the removal was added';

create function mill.removed_positions(p_batch_id bigint, p_before timestamptz default 'infinity') returns table (n integer)
language sql stable
as $$
    select distinct p.n from mill.removed_pair p where p.batch_id = p_batch_id and p.found_at < p_before
$$;
comment on function mill.removed_positions is 'Positions of a batch that a removal names, found before a moment.';

create function mill.removal_kind(r mill.removal) returns text
language sql immutable parallel safe
return case when r.prefix is not null then 'prefix' when r.host is not null then 'host' when r.sample_id is not null then 'sample'
            when position('://' in r.source) > 0 then 'url' else 'image' end;
comment on function mill.removal_kind is 'What a removal names: url, prefix, host, sample or image; an md5 may be of a URL or an image, and counts as an image''s.';

create function mill.host_and_above(p_host text) returns setof text
language sql immutable parallel safe
as $$
    select array_to_string(labels[i:], '.')
      from string_to_array(p_host, '.') labels, generate_subscripts(labels, 1) i
$$;
comment on function mill.host_and_above is 'A host and the domains that it is below: a.b.c gives a.b.c, b.c and c.';

-- Hosts are asked for once each: a file's 50,000 links have some thousands.
create function mill.removed_keys(p_lease_id bigint, p_worker name) returns setof uuid
language plpgsql stable
as $$
begin
    return query
    select i.url_key from inbox.pair i
     where i.lease_id = p_lease_id and i.worker = p_worker
       and exists (select from mill.removal r where r.md5 = i.url_key);
    if exists (select from mill.removal where host is not null) then
        return query
        with linked as materialized (
            select i.url_key, i.url, mill.host(i.url) as host from inbox.pair i
             where i.lease_id = p_lease_id and i.worker = p_worker
        ), hosts as materialized (
            select distinct l.host from linked l
        ), named as materialized (
            select h.host from hosts h
             where exists (select from mill.host_and_above(h.host) above
                             join mill.removal r on r.host = above and r.prefix is null and (r.subdomains or r.host = h.host))
        ), begun as materialized (
            select r.host, r.prefix from hosts h join mill.removal r on r.host = h.host and r.prefix is not null
        )
        select l.url_key from linked l join named using (host)
        union
        select l.url_key from linked l join begun b using (host) where starts_with(l.url, b.prefix);
    end if;
end
$$;
comment on function mill.removed_keys is 'URL keys of an extraction''s links that a removal names, by URL, prefix or host.';

-- An image that a removal names is known by its hash once it is downloaded. Not by its PDQ: among 10,000 a look-up
-- takes 0.8 ms an image (docs/decisions/2026-11-27-sha1-and-pdq.md), so that it waits for a search; until then no release is made.
create function mill.name_images(s mill.submission, t mill.task) returns void
language plpgsql
as $$
begin
    perform mill.hold_removals();
    if t.is_replica or not (exists (select from mill.removal where md5 is not null) or exists (select from mill.removal where sha1 is not null)
                            or exists (select from mill.removal where sha256 is not null) or exists (select from mill.removal where dhash is not null)
                            or exists (select from mill.removal where pdq is not null)) then
        return;
    end if;
    insert into mill.pdq_waiting (submission_id, batch_id)
    select sd.submission_id, t.batch_id from mill.submission_download sd
     where sd.submission_id = s.submission_id and num_nonnulls(variadic sd.pdq) > 0 and exists (select from mill.removal where pdq is not null);
    with given as materialized (
        select d.n, d.md5, d.sha1, d.sha256, d.dhash
          from mill.submission_download sd, unnest(sd.positions, sd.md5, sd.sha1, sd.sha256, sd.dhash) as d (n, md5, sha1, sha256, dhash)
         where sd.submission_id = s.submission_id
    ), found as (
        insert into mill.removed_pair as x (batch_id, n, removal_id, submission_id)
        select t.batch_id, g.n, r.removal_id, s.submission_id from given g join mill.removal r on r.md5 = g.md5
        union
        select t.batch_id, g.n, r.removal_id, s.submission_id from given g join mill.removal r on r.sha1 = g.sha1
        union
        select t.batch_id, g.n, r.removal_id, s.submission_id from given g join mill.removal r on r.sha256 = g.sha256
        union
        select t.batch_id, g.n, r.removal_id, s.submission_id from given g join mill.removal r on r.dhash = g.dhash
        order by 1, 2, 3  -- as a search: two that insert the same rows would deadlock
        on conflict (batch_id, n, removal_id) do nothing
        returning x.batch_id, x.n
    )
    delete from mill.embedding e using found f where e.batch_id = f.batch_id and e.n = f.n;  -- of an earlier image
end
$$;
comment on function mill.name_images is 'Notes the pairs of an accepted download whose images a removal names.';

create function mill.is_image_of(r mill.removal, d mill.download) returns boolean
language sql immutable parallel safe
return coalesce(r.md5 = d.md5 or r.sha1 = d.sha1 or r.sha256 = d.sha256 or r.dhash = d.dhash
                or bit_count(('x' || encode(r.pdq, 'hex'))::bit(256) # ('x' || encode(d.pdq, 'hex'))::bit(256)) <= r.pdq_distance, false);
comment on function mill.is_image_of is 'Whether a removal names the image of a download.';

-- A worker that is not believed any more has named no image.
create function mill.forget_images(p_submissions bigint[]) returns void
language plpgsql
as $$
begin
    update mill.removed_pair p
       set submission_id = d.submission_id
      from mill.removal r, mill.download d
     where p.submission_id = any (p_submissions)
       and r.removal_id = p.removal_id
       and d.batch_id = p.batch_id and d.n = p.n and mill.is_image_of(r, d)
       and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id);
    delete from mill.removed_pair where submission_id = any (p_submissions);
end
$$;
comment on function mill.forget_images(bigint[]) is
    'Of downloads that were withdrawn: the pairs whose images they gave are removed no more, unless another download gave the image.';

create function mill.forget_withdrawn_images() returns trigger
language plpgsql
as $$
begin
    if exists (select from mill.removed_pair where submission_id is not null) then
        perform mill.forget_images((select array_agg(w.submission_id) from newly w));
    end if;
    return null;
end
$$;
comment on function mill.forget_withdrawn_images is 'As mill.forget_images, as the downloads are withdrawn.';

create trigger forget_images after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.forget_withdrawn_images();

create function mill.is_removed(p_url text, p_sha256 bytea) returns boolean
language sql stable
as $$
    select exists (select from mill.removal r where r.md5 = md5(p_url)::uuid or r.sha256 = p_sha256)
        or exists (select from mill.host_and_above(mill.host(p_url)) above
                     join mill.removal r on r.host = above and (r.subdomains or r.host = mill.host(p_url))
                                        and (r.prefix is null or starts_with(p_url, r.prefix)))
$$;
comment on function mill.is_removed is 'Whether a removal names a URL, its beginning, its host or an image.';

-- The pairs that removals name: of those from a number on whose search is not over. URLs are looked up in seen_url; hosts and images
-- have no index: a range of batches is read. Rows come in the order of their key: two searches at once would deadlock.

create function mill.find_removed_urls(p_from bigint) returns void
language plpgsql
as $$
begin
    perform mill.hold_removals();  -- one that is taken back meanwhile is gone before the search, or after it
    insert into mill.removed_pair (batch_id, n, removal_id)
    select k.batch_id, k.n, r.removal_id
      from mill.removal r
      join mill.seen_url k on k.url_key = r.md5
     where r.removal_id >= p_from and r.found_at is null
    union
    select b.batch_id, (r.sample_id & 16383)::integer, r.removal_id
      from mill.removal r
      join mill.batch b on b.batch_id = r.sample_id >> 14 and b.pair_count > r.sample_id & 16383
     where r.removal_id >= p_from and r.found_at is null
     order by 1, 2, 3
    on conflict (batch_id, n, removal_id) do update set submission_id = null;
end
$$;
comment on function mill.find_removed_urls is 'Notes the pairs whose URLs or SAMPLE_IDs removals name: those from a number on whose search is not over.';

create function mill.find_removed_hosts(p_from bigint, p_first bigint, p_last bigint) returns void
language plpgsql
as $$
begin
    perform mill.hold_removals();
    if not exists (select from mill.removal where removal_id >= p_from and found_at is null and host is not null) then
        return;
    end if;
    with linked as materialized (  -- a URL's host is most of the cost
        select p.batch_id, p.n, p.submission_id, p.url, mill.host(p.url) as host from mill.pair p where p.batch_id between p_first and p_last
    ), named as materialized (
        select h.host, r.removal_id, r.prefix
          from (select distinct l.host from linked l) h, mill.host_and_above(h.host) above, mill.removal r
         where r.host = above and (r.subdomains or r.host = h.host) and r.removal_id >= p_from and r.found_at is null
    )
    insert into mill.removed_pair (batch_id, n, removal_id)
    select l.batch_id, l.n, named.removal_id
      from linked l
      join named using (host)
     where (named.prefix is null or starts_with(l.url, named.prefix))
       and not exists (select from mill.withdrawn w where w.submission_id = l.submission_id)
     order by l.batch_id, l.n, named.removal_id
    on conflict (batch_id, n, removal_id) do update set submission_id = null;
end
$$;
comment on function mill.find_removed_hosts is 'Notes the pairs of a range of batches whose hosts, or whose URLs'' beginnings, these removals name.';

-- A withdrawal that began before and is not committed saw none of the rows that a search noted: its end is waited for.
create function mill.settle_images(p_submissions bigint[]) returns void
language plpgsql
as $$
begin
    perform from mill.submission where submission_id = any (p_submissions) order by submission_id for update;
    perform mill.forget_images(array(select w.submission_id from mill.withdrawn w where w.submission_id = any (p_submissions)));
end
$$;
comment on function mill.settle_images is 'Of downloads whose images a search named: forgets those that were withdrawn meanwhile.';

-- Each kind of hash by itself, and those alone that there are: a million downloads are read in a second, and were put by for four joins
-- in 17. Planned with what there is: of an unknown number of removals the planner makes a look-up for each download.
create function mill.find_removed_images(p_from bigint, p_first bigint, p_last bigint) returns void
language plpgsql
as $$
declare
    kind text;
    are_there boolean;
begin
    perform mill.hold_removals();
    foreach kind in array array['md5', 'sha1', 'sha256', 'dhash'] loop
        execute format('select exists (select from mill.removal r where r.removal_id >= $1 and r.found_at is null and r.%I is not null'
                       ' and position(''://'' in r.source) = 0)', kind) into are_there using p_from;
        continue when not are_there;
        execute format($query$
            insert into mill.removed_pair (batch_id, n, removal_id, submission_id)
            select d.batch_id, d.n, r.removal_id, max(d.submission_id)
              from mill.download d
              join mill.removal r on r.%1$I = d.%1$I
             where d.batch_id between $2 and $3 and r.removal_id >= $1 and r.found_at is null
               and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
             group by d.batch_id, d.n, r.removal_id
             order by d.batch_id, d.n, r.removal_id
            on conflict (batch_id, n, removal_id) do nothing
            $query$, kind) using p_from, p_first, p_last;
    end loop;
    perform mill.settle_images(array(
        select distinct p.submission_id from mill.removed_pair p join mill.removal r using (removal_id)
         where r.removal_id >= p_from and r.found_at is null and p.batch_id between p_first and p_last and p.submission_id is not null));
end
$$;
comment on function mill.find_removed_images is 'Notes the pairs of a range of batches whose images'' hashes these removals name; PDQs are compared by `pairmill`.';

create function mill.note_images(p_batches bigint[], p_positions integer[], p_removals bigint[], p_submissions bigint[]) returns bigint
language plpgsql
as $$
declare
    noted bigint;
begin
    perform mill.hold_removals();
    insert into mill.removed_pair (batch_id, n, removal_id, submission_id)
    select x.batch_id, x.n, x.removal_id, max(x.submission_id)
      from unnest(p_batches, p_positions, p_removals, p_submissions) as x (batch_id, n, removal_id, submission_id)
      join mill.removal r using (removal_id)
     where not exists (select from mill.withdrawn w where w.submission_id = x.submission_id)
     group by x.batch_id, x.n, x.removal_id
     order by x.batch_id, x.n, x.removal_id
    on conflict (batch_id, n, removal_id) do nothing;
    get diagnostics noted = row_count;
    perform mill.settle_images(array(select distinct s from unnest(p_submissions) s where s is not null));
    return noted;
end
$$;
comment on function mill.note_images is 'Notes pairs whose images removals name, found elsewhere, with the downloads that gave them. Returns how many are new.';

create function mill.forget_embeddings(p_from bigint, p_first bigint, p_last bigint) returns bigint
language plpgsql
as $$
declare
    gone bigint;
begin
    delete from mill.embedding e
     using mill.removed_pair p
      join mill.removal r using (removal_id)
     where r.removal_id >= p_from and r.found_at is null and p.batch_id between p_first and p_last
       and e.batch_id between p_first and p_last and e.batch_id = p.batch_id and e.n = p.n;
    get diagnostics gone = row_count;
    return gone;
end
$$;
comment on function mill.forget_embeddings is 'Deletes the embeddings of the pairs that removals name: those from a number on whose search is not over. Returns how many.';

create function mill.forget_embeddings_of(p_batches bigint[], p_positions integer[]) returns bigint
language sql
as $$
    with gone as (
        delete from mill.embedding e using unnest(p_batches, p_positions) as x (batch_id, n) where e.batch_id = x.batch_id and e.n = x.n returning 1
    )
    select count(*) from gone
$$;
comment on function mill.forget_embeddings_of is 'Deletes the embeddings of pairs. Returns how many.';

-- URLs that were passed over while they were removed are asked for after all, as a new attempt at their positions.
create function mill.undo_removals(
    p_ids bigint[], why text,
    out removals bigint, out pairs bigint, out urls bigint, out batches bigint, out unscored bigint, out unembedded bigint
)
language plpgsql
as $$
declare
    ids bigint[];
begin
    lock table mill.removal in exclusive mode;
    ids := array(select r.removal_id from mill.removal r where r.removal_id = any (p_ids) or r.spelling_of = any (p_ids));
    select count(*) into removals from mill.removal r where r.removal_id = any (ids) and r.spelling_of is null;
    create temp table freed on commit drop as  -- a pair of several removals counts for the oldest
    select p.batch_id, p.n, min(coalesce(r.spelling_of, r.removal_id)) as removal_id, min(p.found_at) as found_at
      from mill.removed_pair p
      join mill.removal r using (removal_id)
     where p.removal_id = any (ids)
       and not exists (select from mill.removed_pair o where o.batch_id = p.batch_id and o.n = p.n and o.removal_id <> all (ids))
     group by p.batch_id, p.n;
    analyze freed;
    -- their rows go, the days on which they were found keep them
    insert into mill.daily_count as d (day, stage, link_kind, model_id, name, count)
    select (f.found_at at time zone 'UTC')::date, 'removed_pair', '', 0, '', count(*) from freed f group by 1 order by 1
    on conflict (day, stage, link_kind, model_id, name) do update set count = d.count + excluded.count;
    insert into mill.removal_undone (removal_id, source, reason, added_at, added_by, why, pairs)
    select r.removal_id, r.source, r.reason, r.added_at, r.added_by, undo_removals.why, coalesce(f.pairs, 0)
      from mill.removal r
      left join (select x.removal_id, count(*) as pairs from freed x group by x.removal_id) f using (removal_id)
     where r.removal_id = any (ids) and r.spelling_of is null order by r.removal_id;
    delete from mill.removal r where r.removal_id = any (ids);
    with had as (
        select f.batch_id, f.n,
               (select d.outcome from mill.download d
                 where d.batch_id = f.batch_id and d.n = f.n
                   and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id)
                 order by d.attempt desc limit 1) as outcome,
               exists (select from mill.score s where s.batch_id = f.batch_id and s.n = f.n
                          and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)) as scored,
               exists (select from mill.embedding e where e.batch_id = f.batch_id and e.n = f.n) as embedded
          from freed f
          join mill.pair p on p.batch_id = f.batch_id and p.n = f.n
         where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
    ), passed_over as (
        select h.batch_id, array_agg(h.n order by h.n) as positions
          from had h
          join mill.batch b on b.batch_id = h.batch_id and b.link_kind = 'image' and b.closed_at is not null
         where h.outcome is null
           and not exists (select from mill.task t where t.batch_id = h.batch_id and t.kind = 'download' and t.state <> 'done'
                              and not t.is_replica and t.for_model_id is null and (t.positions is null or h.n = any (t.positions))
                              -- as in withdraw_downloads: that task asks no more for a position that it had a row of
                              and not exists (select from mill.download e
                                               where e.batch_id = h.batch_id and e.n = h.n and e.attempt = t.attempt))
         group by h.batch_id
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions)
        select 'download', o.batch_id, mill.next_attempt(o.batch_id), o.positions from passed_over o order by o.batch_id
        returning positions
    )
    select (select count(*) from had), (select coalesce(sum(cardinality(q.positions)), 0) from queued q), (select count(*) from queued),
           (select count(*) from had h where h.outcome = 0 and not h.scored), (select count(*) from had h where h.scored and not h.embedded)
      into pairs, urls, batches, unscored, unembedded;
    drop table freed;
end
$$;
comment on function mill.undo_removals is
    'Takes removals back, and notes who did it and why. pairs: those that no removal names any more; urls, batches: those of them that were passed '
    'over meanwhile, queued for download; unscored: those that no scorer was shown; unembedded: those that were scored and have no embedding.';

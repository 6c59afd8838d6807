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

create function mill.removed_positions(p_batch_id bigint, p_before timestamptz default 'infinity') returns table (n integer)
language sql stable
as $$
    select distinct p.n from mill.removed_pair p where p.batch_id = p_batch_id and p.found_at < p_before
$$;
comment on function mill.removed_positions is 'Positions of a batch that a removal names, found before a moment.';

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
            select i.url_key, mill.host(i.url) as host from inbox.pair i
             where i.lease_id = p_lease_id and i.worker = p_worker
        ), named as materialized (
            select h.host from (select distinct l.host from linked l) h
             where exists (select from mill.host_and_above(h.host) above
                             join mill.removal r on r.host = above and (r.subdomains or r.host = h.host))
        )
        select l.url_key from linked l join named using (host);
    end if;
end
$$;
comment on function mill.removed_keys is 'URL keys of an extraction''s links that a removal names, by URL or by host.';

-- An image that a removal names is known by its hash once it is downloaded.
create function mill.name_images(s mill.submission, t mill.task) returns void
language plpgsql
as $$
begin
    perform mill.hold_removals();
    if t.is_replica or not exists (select from mill.removal where md5 is not null or sha256 is not null) then
        return;
    end if;
    with found as (
        insert into mill.removed_pair as x (batch_id, n, removal_id, submission_id)
        select d.batch_id, d.n, r.removal_id, s.submission_id
          from mill.download d
          join mill.removal r on r.md5 = d.md5
         where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = s.submission_id
        union
        select d.batch_id, d.n, r.removal_id, s.submission_id
          from mill.download d
          join mill.removal r on r.sha256 = d.sha256
         where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = s.submission_id
        on conflict (batch_id, n, removal_id) do nothing
        returning x.batch_id, x.n
    )
    delete from mill.embedding e using found f where e.batch_id = f.batch_id and e.n = f.n;  -- of an earlier image
end
$$;
comment on function mill.name_images is 'Notes the pairs of an accepted download whose images a removal names.';

-- A worker that is not believed any more has named no image.
create function mill.forget_images() returns trigger
language plpgsql
as $$
declare
    gone bigint[];
begin
    if not exists (select from mill.removed_pair where submission_id is not null) then
        return null;
    end if;
    select array_agg(w.submission_id) into gone from newly w;
    update mill.removed_pair p
       set submission_id = d.submission_id
      from mill.removal r, mill.download d
     where p.submission_id = any (gone)
       and r.removal_id = p.removal_id
       and d.batch_id = p.batch_id and d.n = p.n and (d.md5 = r.md5 or d.sha256 = r.sha256)
       and not exists (select from mill.withdrawn w where w.submission_id = d.submission_id);
    delete from mill.removed_pair where submission_id = any (gone);
    return null;
end
$$;
comment on function mill.forget_images is
    'Once downloads are withdrawn: the pairs whose images they gave are removed no more, unless another download gave the image.';

create trigger forget_images after insert on mill.withdrawn
    referencing new table as newly for each statement execute function mill.forget_images();

-- The probe: which links of a file are known already, asked before a worker tags and copies them. It only saves work: the merge
-- looks every key up that comes in, and an extraction whose answers may have become wrong is asked for again (mill.probe_holds).

-- 20,000 keys among 4,000,000 known URLs, in memory: 110 to 190 ms on PostgreSQL 18, 120 to 210 on 15, so 5 to 10 µs a key.
-- The settings leave one plan, whatever the statistics say: a look into the index of one partition for each key. A hash join would
-- read all of seen_url. In order of the keys, since neighbours share pages: a quarter less.
create function mill.unknown_keys(p_keys bytea) returns bytea
language plpgsql
set work_mem = '16MB'
set plan_cache_mode = 'force_custom_plan'
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    hosts constant boolean := exists (select from mill.removal where host is not null);
    searching constant boolean := exists (select from mill.removal where host is not null and found_at is null);
begin
    return (
        with asked as materialized (
            select i as place, encode(substr(p_keys, 1 + 16 * i, 16), 'hex')::uuid as url_key from generate_series(0, length(p_keys) / 16 - 1) i
        ), answered as (
            select a.place,
                   -- Subselects of one table each, with a limit: of EXISTS the planner may make a table of all that there is, and of a join
                   -- one that begins at the removals (of 2,000 hosts and 48,000 pairs, not analysed: minutes).
                   case when k.url_key is null then 1
                        when (select true from mill.removal r where r.md5 = a.url_key limit 1) then 1
                        when hosts and (select true from mill.removed_pair x
                                         where x.batch_id = k.batch_id and x.n = k.n
                                           and (select r.host is not null from mill.removal r where r.removal_id = x.removal_id) limit 1) then 1
                        when searching and (select true from mill.pair p, mill.host_and_above(mill.host(p.url)) above
                                             where p.batch_id = k.batch_id and p.n = k.n
                                               and (select true from mill.removal r
                                                     where r.host = above and r.found_at is null
                                                       and (r.subdomains or r.host = mill.host(p.url))
                                                       and (r.prefix is null or starts_with(p.url, r.prefix)) limit 1) limit 1) then 1
                        else 0 end as is_unknown
              from (select * from asked order by url_key) a
              left join mill.seen_url k on k.url_key = a.url_key
        )
        select coalesce(string_agg(set_byte('\x00', 0, bits), null order by at), '')
          from (select place / 8 as at, sum(is_unknown << place % 8)::integer as bits from answered group by 1) byte);
end
$$;
comment on function mill.unknown_keys is
    'Of URL keys, 16 bytes each, those that the merge has to see: bit i (of byte i / 8, the lowest first) is set where key i is not known, or a '
    'removal names it, which the merge counts.';

-- require_lease locks the task: the calls of a lease come one after another.
create function api.probe_v1(p_lease_id bigint, p_keys bytea) returns bytea
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    most_at_once constant integer := 25000;    -- a worker asks for 20,000; its task and its snapshot are held for as long as this takes
    most_a_lease constant integer := 2000000;  -- a file of Common Crawl has about 400,000 links with a text, and 730,000 with all
    t constant mill.task := mill.require_lease(p_lease_id, 'extract');
    freed constant bigint := (select s.freed from mill.setting s);  -- read first: what is freed from here on is noticed
    asked integer;
    answer bytea;
begin
    if p_keys is null or length(p_keys) % 16 <> 0 then
        perform mill.refuse('PM003', format('keys are md5 sums of 16 bytes each, and %s bytes are no whole number of them', coalesce(length(p_keys)::text, 'null')));
    end if;
    asked := length(p_keys) / 16;
    if asked > most_at_once then
        perform mill.refuse('PM003', format('%s keys were asked for at once, and %s are the most that may be', asked, most_at_once));
    end if;
    if asked + (select l.probed from mill.lease l where l.lease_id = p_lease_id) > most_a_lease then
        perform mill.refuse('PM003', format('more than %s keys were asked for under lease %s, the most that may be', most_a_lease, p_lease_id));
    end if;
    answer := mill.unknown_keys(p_keys);
    update mill.lease l
       set probed = l.probed + asked,
           freed_before = coalesce(l.freed_before, case when bit_count(answer) < asked then freed end)
     where l.lease_id = p_lease_id;
    return answer;
end
$$;
comment on function api.probe_v1 is
    'p_keys: URL keys (md5) of an extraction under way, 16 bytes each, 25,000 at most, and 2,000,000 a lease. Returns a bitmap: bit i (of byte i / 8, '
    'the lowest first) is set where key i is unknown, and its link has to be handed over; the others may be counted as duplicates.';

-- A known URL that was not handed over would be lost if its pair was withdrawn before the merge. The number is read under the
-- lock of seen_url, which a withdrawal takes, too: one of both sees the other.
create function mill.probe_holds(p_lease_id bigint) returns boolean
language sql
as $$
    select l.freed_before is null or l.freed_before = s.freed from mill.lease l, mill.setting s where l.lease_id = p_lease_id
$$;
comment on function mill.probe_holds is 'Whether all URLs that a probe under this lease found known are known still: no extraction was withdrawn since.';

select mill.allow('extract', 'api.probe_v1');

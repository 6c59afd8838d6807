-- Guards of the inboxes: workers insert there themselves, so a trigger checks the lease and the quota.

-- After each statement, not after each row: 10 ms for 20,000 rows instead of 60. The rows lie in memory or in a
-- temporary file until then, so that temp_file_limit ends a statement that does not end by itself.
create function mill.enforce_quota() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker;
    least_id bigint;
    most_id bigint;
    size bigint;
begin
    select min(lease_id), max(lease_id), sum(pg_column_size(c)) into least_id, most_id, size from copied c;
    if least_id is null or not exists (select from mill.worker where login = session_user) then  -- an admin
        return null;
    end if;
    w := mill.me();
    if least_id <> most_id then
        perform mill.refuse('PM003', 'rows of several leases were copied at once');
    end if;
    update mill.lease l
       set copied_bytes = l.copied_bytes + size
      from mill.instance i
     where l.lease_id = least_id
       and i.instance_id = l.instance_id
       and i.worker_id = w.worker_id
       and l.ended_at is null
       and l.expires_at > clock_timestamp()
    returning l.copied_bytes into size;
    if not found then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', least_id));
    end if;
    if size > 1000000 * (select inbox_mb_per_lease::bigint from mill.setting) then
        perform mill.refuse('PM003', format('more than %s MB were copied under lease %s, the most that may be',
                                            (select inbox_mb_per_lease from mill.setting), least_id));
    end if;
    return null;
end
$$;
comment on function mill.enforce_quota is
    'Lets a worker copy into an inbox under its own live leases only, and at most inbox_mb_per_lease under each. An admin may insert any row.';

create trigger enforce_quota after insert on inbox.pair
    referencing new table as copied for each statement execute function mill.enforce_quota();
create trigger enforce_quota after insert on inbox.page
    referencing new table as copied for each statement execute function mill.enforce_quota();
create trigger enforce_quota after insert on inbox.score
    referencing new table as copied for each statement execute function mill.enforce_quota();
create trigger enforce_quota after insert on inbox.tag
    referencing new table as copied for each statement execute function mill.enforce_quota();

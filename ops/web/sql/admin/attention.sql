-- Counts of what waits for an admin.

select (select count(*) from mill.removal_request where state = 'open') as requests,
       (select count(*) from mill.removal_request where state = 'open' and due_at < now()) as late_requests,
       (select count(*) from (select from report.replication where state = 'disputed' limit 1000) d) as disputes,
       (select count(*) from mill.worker where stopped_because is not null and disabled_at is not null) as stopped_workers,
       (select count(*) from mill.removal where found_at is null and spelling_of is null) as unfinished_searches

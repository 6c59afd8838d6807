-- What the facts of a database rest on: whenever one of these changes, facts may have.

select (select coalesce(max(submission_id), 0) from mill.submission) as submission,
       (select count(*) from mill.submission where state = 'accepted') as accepted,
       (select count(*) from mill.withdrawn) as withdrawn,
       (select coalesce(max(batch_id), 0) from mill.batch) as batch,
       (select coalesce(sum(pair_count), 0)::bigint from mill.batch) as pairs

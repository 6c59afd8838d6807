-- The requests for removal: of the open ones those first that are due first, then the newest of the others.

select q.request_id, q.state, q.entries, q.of_pages, q.requester, q.evidence, q.received_at, q.due_at, q.noted_by::text as noted_by,
       q.state = 'open' and q.due_at < now() as late, q.decided_at, q.decided_by::text as decided_by, q.why, q.removals,
       q.attachment, q.origin
  from mill.removal_request q
 where (%(request_id)s::bigint is null or q.request_id = %(request_id)s)
   and (%(state)s::text is null or q.state = %(state)s)
 order by q.state <> 'open', case when q.state = 'open' then q.due_at end, q.request_id desc
 limit %(limit)s

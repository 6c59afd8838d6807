select request_id, state, entries[:100] as entries, cardinality(entries) as count, of_pages, received_at, due_at,
       state = 'open' and due_at < now() as late, decided_at, decided_by::text as decided_by, why
  from mill.removal_request
 where request_id = %(request)s

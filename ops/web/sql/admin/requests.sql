-- Requests for removal, without who asked: those that are due first at the top.

select request_id, state, entries[:3] as entries, cardinality(entries) as count, received_at, due_at, state = 'open' and due_at < now() as late,
       decided_at, decided_by::text as decided_by
  from mill.removal_request
 where (%(state)s::text is null or state = %(state)s)
   and (%(before)s::bigint is null or request_id < %(before)s)
 order by state <> 'open', case when state = 'open' then due_at end, request_id desc
 limit %(limit)s

update mill.admin_session set ended_at = clock_timestamp()
 where (%(session_id)s::bigint is null or session_id = %(session_id)s) and ended_at is null and expires_at > now()

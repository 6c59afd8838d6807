update mill.admin_session set ended_at = clock_timestamp()
 where secret_sha256 = %(hash)s and ended_at is null
returning session_id, name, role, expires_at

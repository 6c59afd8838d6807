-- An open session; that it was seen is written once a minute, and not at each page.

with seen as (
    update mill.admin_session set last_seen_at = clock_timestamp()
     where secret_sha256 = %(hash)s and ended_at is null and expires_at > clock_timestamp()
       and last_seen_at between clock_timestamp() - make_interval(secs => %(idle)s) and clock_timestamp() - interval '1 minute'
)
select session_id, name, role, expires_at
  from mill.admin_session
 where secret_sha256 = %(hash)s and ended_at is null and expires_at > clock_timestamp()
   and last_seen_at > clock_timestamp() - make_interval(secs => %(idle)s)

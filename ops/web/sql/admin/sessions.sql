-- Sessions of this page, the open ones first.

select session_id, name, role, made_at, last_seen_at, expires_at, ended_at, network,
       ended_at is null and expires_at > now() and last_seen_at > now() - make_interval(secs => %(idle)s) as is_open
  from mill.admin_session
 where made_at > now() - interval '90 days'
 order by is_open desc, session_id desc
 limit 200

-- Uses a link and opens its session, in one statement: of two that come with the same link one is let in.

with used as (
    update mill.admin_link set used_at = clock_timestamp()
     where token_sha256 = %(link)s and used_at is null and expires_at > clock_timestamp()
    returning name, role
), gone as (
    delete from mill.admin_session where expires_at < now() - interval '90 days'
)
insert into mill.admin_session (secret_sha256, name, role, expires_at, network)
select %(hash)s, name, role, clock_timestamp() + make_interval(secs => %(seconds)s), %(network)s from used
returning session_id, name, role, expires_at

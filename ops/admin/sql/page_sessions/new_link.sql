-- A new link; those that ended a day ago are forgotten.

with gone as (
    delete from mill.admin_link where expires_at < now() - interval '1 day'
)
insert into mill.admin_link (token_sha256, name, role, made_by, expires_at)
values (%(hash)s, %(name)s, %(role)s, %(by)s, clock_timestamp() + make_interval(secs => %(seconds)s))

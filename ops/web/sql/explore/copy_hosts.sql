-- every host of the release, numbered so that a host and its subdomains stand together
create table host as
select (row_number() over (order by reversed, name) - 1)::integer as code, name, reversed, rows
from (
    select name, {reversed} as reversed, rows
    from (select {host} as name, count(*)::bigint as rows from ({source}) group by 1)
)
order by reversed, name

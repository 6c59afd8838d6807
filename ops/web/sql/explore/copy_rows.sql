-- rows of one file. A join does not keep the order of rows
{into}
select {id} as _id, host.code as _host, source.*
from ({source}) as source
left join host on host.name = {host}
order by _id

-- the commonest words, each with a bit: a scan for a bit costs less than a join with its positions
create table common as
select key, (row_number() over (order by count(*) desc, key) - 1)::integer as bit,
    count(*)::bigint as rows
from word
group by key
order by rows desc, key
limit $1

-- hashes of a column, by which rows are found. A position is a row's place in the copy, from 0
create table {table} as
select hash({column}) as key, rowid::integer as position
from source.whole
where {column} is not null
order by key, position

-- rows that do not stand after the one with the next smaller id
select count(*)
from (select _id, lag(_id) over (order by rowid) as before from source.whole)
where before >= _id

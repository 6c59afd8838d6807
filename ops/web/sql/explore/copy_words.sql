-- each word of a text once a row
create table word as
select hash(word) as key, position
from (select unnest(list_distinct({words})) as word, rowid::integer as position from source.whole)
order by key, position

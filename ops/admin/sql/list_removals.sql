-- What pg_temp.named has is named by the list, and by no earlier one of its source.

with earlier as (
    delete from mill.removal_listed m using mill.removal_list l, named
     where l.list_id = m.list_id and l.source = %(source)s and l.list_id < %(list_id)s and m.removal_id = named.removal_id
)
insert into mill.removal_listed (list_id, removal_id) select %(list_id)s, removal_id from named order by removal_id

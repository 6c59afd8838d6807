-- The removals that earlier lists of a source name and the newest does not; is_free: nothing else names them.

select m.removal_id,
       not r.by_hand and not exists (select from mill.removal_listed o join mill.removal_list k using (list_id)
                                      where o.removal_id = m.removal_id and k.source <> %(source)s) as is_free
  from mill.removal_listed m
  join mill.removal_list l using (list_id)
  join mill.removal r using (removal_id)
 where l.source = %(source)s and l.list_id < %(list_id)s
 order by 1

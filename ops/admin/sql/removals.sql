-- The removals, without other spellings, with the pairs that they name; found: whether all of those are known.

select r.removal_id,
       mill.removal_kind(r) as kind,
       r.source, r.reason, r.added_at, r.added_by::text as added_by,
       (select count(distinct (p.batch_id, p.n)) from mill.removed_pair p
         where p.removal_id = r.removal_id
            or p.removal_id in (select s.removal_id from mill.removal s where s.spelling_of = r.removal_id)) as pairs,
       r.found_at is not null as found,
       array(select l.source from mill.removal_listed m join mill.removal_list l using (list_id) where m.removal_id = r.removal_id order by 1) as lists,
       array(select s.source from mill.removal s where s.spelling_of = r.removal_id order by s.removal_id) as spellings
  from mill.removal r
 where r.spelling_of is null
   and (%(kind)s::text is null
        or mill.removal_kind(r) = %(kind)s)
   and (%(reason)s::text is null or position(lower(%(reason)s) in lower(r.reason)) > 0)
   and (%(ids)s::bigint[] is null or r.removal_id = any (%(ids)s))
 order by r.removal_id desc
 limit %(limit)s

-- Of each source of removals the newest list, with the entries that are there now.

select l.source, l.format, l.dated, l.expires_at, encode(l.digest, 'hex') as digest, l.entries, l.imported_at, l.imported_by::text as imported_by,
       (select count(*) from mill.removal_listed m where m.list_id = l.list_id) as present,
       coalesce(l.expires_at <= now(), false) as expired,
       floor(extract(epoch from now() - l.dated) / 86400)::integer as age_days
  from mill.removal_list l
 where not exists (select from mill.removal_list n where n.source = l.source and n.list_id > l.list_id)
 order by l.source

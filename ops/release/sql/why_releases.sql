-- What releases decided of one pair: of these, or where none is named of the newest of each name.

select r.release_id, r.name, r.version, r.built_at, r.recipe,
       case when %(n)s < octet_length(b.decisions) then coalesce(r.words[get_byte(b.decisions, %(n)s)], 'no candidate') end as decision,
       b.duplicates, r.methods
  from report.release v
  join mill.release r using (release_id)
  left join mill.release_batch b on b.release_id = r.release_id and b.batch_id = %(batch_id)s
 where case when %(chosen)s::integer[] is null then v.is_newest else r.release_id = any (%(chosen)s::integer[]) end
 order by r.name, r.release_id

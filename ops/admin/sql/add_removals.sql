-- The entries of pg_temp.given that are new, with their other spellings; one that is there as another's spelling is known.

with first as materialized (
    select distinct on (g.source) g.* from given g where not g.is_spelling order by g.source, g.place
), unknown as materialized (
    select f.* from first f where not exists (select from mill.removal r where md5(r.source) = md5(f.source) and r.source = f.source)
), fresh as (
    insert into mill.removal (source, md5, sha1, sha256, dhash, pdq, pdq_distance, sample_id, host, prefix, subdomains, reason, by_hand)
    select u.source, u.md5, u.sha1, u.sha256, u.dhash, u.pdq, u.pdq_distance, u.sample_id, u.host, u.prefix, u.subdomains, %(reason)s, %(by_hand)s
      from unknown u order by u.place
    returning removal_id, source
), spelled as (
    insert into mill.removal (source, md5, host, prefix, subdomains, reason, by_hand, spelling_of)
    select s.source, s.md5, s.host, s.prefix, s.subdomains, %(reason)s, %(by_hand)s, f.removal_id
      from given s
      join unknown u using (place)
      join fresh f on f.source = u.source
     where s.is_spelling order by s.place
    on conflict do nothing
)
select (select count(*) from fresh), (select count(*) from first), (select coalesce(min(removal_id), 0) from fresh)

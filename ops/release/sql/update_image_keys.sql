-- Hashes of the images of removed pairs, and those that removals name: the same image under another URL goes, too.
select replace(d.md5::text, '-', ''), encode(d.sha256, 'hex')
  from mill.removed_pair p
  join mill.download d using (batch_id, n)
 where d.md5 is not null
union
select replace(md5::text, '-', ''), null from mill.removal where md5 is not null
union
select null, encode(sha256, 'hex') from mill.removal where sha256 is not null

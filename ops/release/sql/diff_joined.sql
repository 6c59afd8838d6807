-- Each key of two releases, and where it is. {hash}: of the columns that both have.
create table joined as
select key, case when b.hash is null then 'only_in_a' when a.hash is null then 'only_in_b' when a.hash <> b.hash then 'changed' else 'same' end as place
  from (select key, {hash} as hash from a) a
  full join (select key, {hash} as hash from b) b using (key);

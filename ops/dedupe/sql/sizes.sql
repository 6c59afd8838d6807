-- How many groups have so many rows: those that go and the one that stays.
select rows + 1 as size, count(*) as groups
  from (select of, count(*) as rows from duplicate where of is not null group by of)
 group by size
 order by size

-- The removals that pg_temp.given names: those that are there now, as such or as the one of which it is a spelling.

create temporary table named on commit drop as
select distinct x.removal_id
  from (select distinct on (g.source) coalesce(r.spelling_of, r.removal_id) as removal_id
          from given g
          join mill.removal r on md5(r.source) = md5(g.source) and r.source = g.source
         where not g.is_spelling
         order by g.source, r.spelling_of nulls first) x

-- The similarities of one bucket of the pool.

select similarity, count(*) as pairs
  from ({candidate}) candidate
 where scored = 0 and similarity between -1 and 1 and cast(floor((similarity + 1) * 32768) as int) = {bucket}
 group by 1

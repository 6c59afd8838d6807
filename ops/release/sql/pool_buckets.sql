-- The pool of top_fraction in 65,536 buckets of similarity: all that are scored, whatever else holds of them.

select cast(floor((similarity + 1) * 32768) as int) as bucket, count(*) as pairs
  from ({candidate}) candidate
 where scored = 0 and similarity between -1 and 1
 group by 1

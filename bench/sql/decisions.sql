-- The decisions of a release: of each batch, by reason (null: kept) and language, the positions (int2, big-endian) and their number.
-- release.sql is the query within it.

select sample_id >> 14 as batch_id, excluded, language, count(*) as pairs,
       string_agg(int2send((sample_id & 16383)::smallint), ''::bytea) as positions
  from ({query}) pair
 group by 1, 2, 3
 order by 1, 2, 3

-- How downloads of the last week ended, from the counts by day.

select name as outcome, sum(added)::bigint as urls, sum(withdrawn)::bigint as withdrawn
  from report.history
 where stage = 'download' and day > (now() at time zone 'UTC')::date - 7
 group by name
 order by urls desc
 limit 100

-- What the watchdog did, by worker, the newest first: a login that comes again and again is one row.
select worker, state, count(*) as sessions, max(seconds) as longest, max(at) as at
  from report.ended_session group by worker, state order by max(ended_session_id) desc limit 20

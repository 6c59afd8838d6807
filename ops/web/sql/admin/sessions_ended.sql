-- What the watchdog did, the newest first.
select worker, state, seconds, at from report.ended_session order by ended_session_id desc limit 20

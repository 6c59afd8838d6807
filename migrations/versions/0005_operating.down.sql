-- What was withdrawn stays withdrawn.

drop function api.metrics_v1();
drop view report.queue;
drop view report.rate;
drop view report.leaderboard;
drop view report.table_size;
drop function mill.rotate_worker(text, text);
drop function mill.login_of(text);
drop function mill.quarantine_worker(text, timestamptz, text);
drop function mill.restored();

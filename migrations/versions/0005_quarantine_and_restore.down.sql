-- What was withdrawn stays withdrawn.

drop function mill.rotate_worker(text, text);
drop function mill.login_of(text);
drop function mill.quarantine_worker(text, timestamptz, text);
drop function mill.restored();

-- Tasks of kinds that the older code does not know: nobody would claim them, and a --drain would wait for them.

do $$
declare
    t mill.task;
begin
    for t in select * from mill.task where kind = any (string_to_array(current_setting('pairmill.unknown_kinds'), ','))
                and state in ('ready', 'leased', 'submitted') order by task_id for update
    loop
        perform mill.end_lease(l.lease_id, 'expired') from mill.lease l where l.task_id = t.task_id and l.ended_at is null;
        update mill.task set state = 'discarded', reason = 'the older revision does not know its kind', changed_at = now() where task_id = t.task_id;
    end loop;
end
$$;

-- Hooks: a kind's own functions, called by those that all kinds share. mill.hook_left(t), say, calls mill.extract_left(t) for
-- a task of kind extract; for a kind without one it calls that of the kind's subject, mill.item_left(t).
-- The CASE is written once, here: an EXECUTE is planned at each call (an empty hook took 24 µs, and 7 by a CASE).

do $$
declare
    hook record;
    kind record;
    callee text;
    branches text;
begin
    for hook in select * from (values
        ('payload',  't mill.task, p_lease_id bigint',            't, p_lease_id', 'jsonb',  true,
         'JSON for the worker that has just claimed a task.'),
        ('left',     't mill.task',                               't',             'bigint', true,
         'Amount of a task that no received or accepted submission covers; 0: it is complete.'),
        ('accept',   's mill.submission, t mill.task',            's, t',          'void',   true,
         'Expands a submission into rows. A data or integrity error rejects it.'),
        ('reject',   's mill.submission, t mill.task',            's, t',          'void',   false,
         'Deletes the rows of a rejected submission.'),
        ('done',     't mill.task',                               't',             'void',   false,
         'Makes the tasks that follow from one that is done.'),
        ('withdraw', 's mill.submission, t mill.task, why text',  's, t, why',     'void',   true,
         'Queues the work of a withdrawn submission again.')
    ) as x (name, parameters, arguments, returns, needed, says)
    loop
        branches := '';
        for kind in select k.* from string_to_table(current_setting('pairmill.kinds'), ',') n (name) join mill.task_kind k using (name) loop
            callee := coalesce(
                (select p.proname from pg_proc p where p.pronamespace = 'mill'::regnamespace and p.proname = kind.name || '_' || hook.name),
                (select p.proname from pg_proc p where p.pronamespace = 'mill'::regnamespace and p.proname = kind.subject || '_' || hook.name));
            if callee is null and hook.needed then
                raise exception 'kind % has no function mill.%_%(%)', kind.name, kind.name, hook.name, hook.parameters;
            end if;
            branches := branches || format(E'        when %L then %s;\n', kind.name,
                case when callee is null then 'null'
                     else format(case when hook.returns = 'void' then 'perform mill.%I(%s)' else 'return mill.%I(%s)' end, callee, hook.arguments) end);
        end loop;
        execute format(E'create function mill.hook_%s(%s) returns %s\nlanguage plpgsql\nas $f$\nbegin\n    case t.kind\n%s    end case;\nend\n$f$',
                       hook.name, hook.parameters, hook.returns, branches);
        execute format('comment on function mill.hook_%s is %L', hook.name, hook.says);
    end loop;
end
$$;

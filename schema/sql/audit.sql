-- What admins did: entries that nobody changes.

create function mill.keep_audit() returns trigger
language plpgsql
as $$
begin
    raise exception 'entries of the audit log are never changed' using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function mill.keep_audit is 'Refuses every change of the audit log but an insertion, to its owner and to superusers, too.';

create trigger audit_entry_rows before update or delete on mill.audit_entry
    for each row execute function mill.keep_audit();
create trigger audit_entry_table before truncate on mill.audit_entry
    for each statement execute function mill.keep_audit();

create view mill.audit as
select b.audit_id, b.at, coalesce(e.at, case when b.outcome <> 'begun' then b.at end) as ended_at,
       b.actor, b.role, b.origin, b.session_id, b.login, b.action, b.arguments,
       case when b.outcome <> 'begun' then b.outcome else coalesce(e.outcome, 'unfinished') end as outcome,
       coalesce(e.affected, b.affected) as affected, coalesce(e.answer, b.answer) as answer
  from mill.audit_entry b
  left join mill.audit_entry e on e.begun_id = b.audit_id
 where b.begun_id is null;
comment on view mill.audit is 'The audit log, a row an action.';
comment on column mill.audit.audit_id is 'Key';
comment on column mill.audit.at is 'When it began';
comment on column mill.audit.ended_at is 'When it ended; null: it is at work, or was interrupted';
comment on column mill.audit.actor is 'As audit_entry.actor';
comment on column mill.audit.role is 'As audit_entry.role';
comment on column mill.audit.origin is 'As audit_entry.origin';
comment on column mill.audit.session_id is 'As audit_entry.session_id';
comment on column mill.audit.login is 'As audit_entry.login';
comment on column mill.audit.action is 'As audit_entry.action';
comment on column mill.audit.arguments is 'As audit_entry.arguments';
comment on column mill.audit.outcome is 'done, refused, failed, or unfinished: it is at work, or was interrupted';
comment on column mill.audit.affected is 'As audit_entry.affected';
comment on column mill.audit.answer is 'As audit_entry.answer';

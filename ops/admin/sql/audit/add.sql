insert into mill.audit_entry (actor, role, origin, session_id, action, arguments, outcome, begun_id, affected, answer)
values (%(actor)s, %(role)s, %(origin)s, %(session)s, %(action)s, %(arguments)s, %(outcome)s, %(begun)s, %(affected)s, %(answer)s)
returning audit_id

-- Whether anything is under way that the schema before checks would take for something else.
select exists (select from mill.assignment a join mill.lease l using (lease_id) where l.ended_at is null)
    or exists (select from mill.submission s join mill.task t using (task_id) where t.is_check and s.state = 'received')

select t.*, x.excused, x.changed_at as changed from report.task t join mill.task x using (task_id) where t.task_id = %(task)s

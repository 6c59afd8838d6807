select * from report.waiting order by kind, purpose, model, waits_for

select kind, purpose, model, waits_for, tasks, first_ready_at, last_ready_at, claimant_seen_at, first_task_id
  from report.waiting order by tasks desc, kind, purpose limit 100

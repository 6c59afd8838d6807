-- The scores of one pair that count, and the work that is to give more.

select m.model_id, trim(m.name || ' ' || m.pretrained) as model, o.name as outcome, s.similarity, t.task_id, t.state as task_state,
       coalesce(t.reason, t.waits_for) as task_reason
  from mill.model m
  left join mill.current_score s on s.model_id = m.model_id and s.batch_id = %(batch_id)s and s.n = %(n)s
  left join mill.score_outcome o on o.code = s.outcome
  left join lateral (select y.* from mill.task x join report.task y using (task_id)
                      where x.batch_id = %(batch_id)s and x.kind = 'score' and x.model_id = m.model_id and x.state <> 'done'
                      order by x.attempt desc limit 1) t on s.outcome is null
 where m.kind = 'clip' and (m.retired_at is null or s.outcome is not null)
 order by m.model_id

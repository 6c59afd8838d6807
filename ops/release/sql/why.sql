-- What is known of one pair: from where it came, and what became of it.

select p.batch_id, p.n, mill.sample_id(p.batch_id, p.n) as sample_id, p.url, p.text, coalesce(p.language, 'nolang') as language,
       mill.text_weight(p.text) as text_weight, b.link_kind, b.closed_at is null as in_open_batch,
       f.location as wat, f.language_detector, g.url as page, c.name as crawl,
       w.reason as withdrawn_because, r.removal_id, r.reason as removed_because, r.added_at as removed_at,
       exists (select from mill.cover_row v where v.sample_id = mill.sample_id(p.batch_id, p.n)) as is_covered,
       o.name as outcome, d.http_status, d.bytes, d.width, d.height, d.attempt, x.signal, x.value, x.source,
       t.task_id, t.state as task_state, coalesce(t.reason, t.waits_for) as task_reason
  from mill.pair p
  join mill.batch b using (batch_id)
  left join mill.wat_file f using (wat_id)
  left join mill.crawl c using (crawl_id)
  left join mill.page g on g.wat_id = p.wat_id and g.submission_id = p.submission_id and g.page = p.page
  left join mill.withdrawn w on w.submission_id = p.submission_id
  left join mill.removed r on r.batch_id = p.batch_id and r.n = p.n
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
  left join mill.outcome o on o.code = d.outcome
  left join mill.opt_out x on x.batch_id = d.batch_id and x.n = d.n and x.attempt = d.attempt
       -- of its downloads the one that comes next, else the last
  left join lateral (select y.* from report.task y where y.batch_id = p.batch_id and y.kind = 'download' and y.purpose in ('work', 'retry')
                      order by y.state = 'done', y.attempt desc limit 1) t on true
 where p.batch_id = %(batch_id)s and p.n = %(n)s

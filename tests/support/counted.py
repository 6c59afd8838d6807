"""What the counters of the funnel must say, counted from the rows: as the views did before there were counters."""

from support.database import Database

PAIRS = """
select p.link_kind, p.language, coalesce(o.name, 'waiting') as outcome, count(*) as pairs
  from (select b.link_kind, coalesce(p.language, 'nolang') as language, p.batch_id, p.n
          from mill.pair p join mill.batch b using (batch_id)
         where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)) p
  left join mill.current_download d using (batch_id, n)
  left join mill.outcome o on o.code = d.outcome
 group by 1, 2, 3
"""
SCORES = """
select m.name as model, coalesce(p.language, 'nolang') as language,
       coalesce(o.name, case when t.whole or d.attempt = any (t.attempts) then 'waiting' else 'not_queued' end) as outcome,
       count(distinct (p.batch_id, p.n)) as pairs
  from mill.pair p
  join mill.current_download d using (batch_id, n)
 cross join mill.model m
  left join mill.scoring_to_come t on t.batch_id = p.batch_id and t.model_id = m.model_id
  left join mill.current_score s on s.batch_id = p.batch_id and s.n = p.n and s.model_id = m.model_id
  left join mill.score_outcome o on o.code = s.outcome
 where m.kind = 'clip' and d.outcome = 0 and (m.retired_at is null or s.n is not null)
   and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by 1, 2, 3
"""
FILES = """
select coalesce(c.name, ''), t.state, count(*)
  from mill.wat_file f join mill.task t on t.wat_id = f.wat_id and t.kind = 'extract' left join mill.crawl c using (crawl_id)
 where f.removed_at is null group by 1, 2
"""
# what a view says, and what the rows say
SAME = {
    "pairs": ("select link_kind, language, outcome, pairs from report.pair_count", PAIRS),
    "scores": ("select model, language, outcome, pairs from report.score_count", SCORES),
    "scores of status": (
        "select model, outcome, pairs from mill.scored",
        f"select model, outcome, sum(pairs) from ({SCORES}) x group by 1, 2",
    ),
    "files of crawls": (
        "select crawl, key, value::bigint from report.crawl, jsonb_each_text(wat_files)",
        FILES,
    ),
    "tasks": (
        "select kind, state, n from report.queue, lateral (values ('ready', ready),"
        " ('leased', leased), ('submitted', submitted), ('done', done), ('discarded', discarded),"
        " ('parked', parked)) x (state, n) where n > 0",
        "select kind, state, count(*) from mill.task group by 1, 2",
    ),
    "tasks that are done": ("select kind, kept, found from mill.misdone", "select '', 0, 0 where false"),
    "counters of batches": ("select batch_id, kept, found from mill.miscount", "select 0, 0, 0 where false"),
    "credit of workers": ("select worker_id, kept, found from mill.miscredit", "select 0, 0, 0 where false"),
    "sums": ("select language, kept, found from mill.missum", "select '', 0, 0 where false"),
}  # fmt: skip
# each must give no row
DIFFERENCES = {
    f"counted otherwise than the rows: {what}": f"""
        (({said}) except all ({counted})) union all (({counted}) except all ({said}))"""
    for what, (said, counted) in SAME.items()
}


def miscounted(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Rows of each view that the rows of the tables do not bear out, and the other way round."""
    found = {what: db.rows(query) for what, query in DIFFERENCES.items()}
    return {what: rows for what, rows in found.items() if rows}

"""The books: what must be true of the database and the logs at the end."""

import json
import re
from contextlib import suppress

from support.chaos.crowd import Crowd
from support.chaos.plan import Plan, Report
from support.chaos.server import Server
from support.counted import DIFFERENCES

COUNTS = "not exists (select from mill.withdrawn w where w.submission_id = {}.submission_id)"
# each must give no row
BOOKS = {
    "a URL without exactly one counting download": f"""
        select p.url, count(*), count(d.n) from mill.pair p
          left join mill.current_download d using (batch_id, n)
         where {COUNTS.format("p")} group by p.url having count(*) <> 1 or count(d.n) <> 1""",
    "a (batch, n, attempt) twice": """
        select batch_id, n, attempt from mill.download group by 1, 2, 3 having count(*) > 1""",
    "a download that counts beside another attempt's": f"""
        select batch_id, n, count(*) from mill.download d
         where {COUNTS.format("d")} group by 1, 2 having count(*) > 1""",
    "credit that is not the rows that count": f"""
        select * from (select (select coalesce(sum(rows_accepted), 0) from report.worker where kind = 'download') as credit,
               (select count(*) from mill.download d where {COUNTS.format("d")}) as rows) x where credit <> rows""",
    "a task that is not done": "select * from report.task where state <> 'done'",
    "a lease that lives": "select * from mill.lease where ended_at is null",
    "a lease of a done task that ended in no way": "select * from mill.lease where ended_as is null",
    "a row in an inbox": "select lease_id from inbox.pair union all select lease_id from inbox.page union all select lease_id from inbox.score",
    "a submission that waits": "select * from mill.submission where state = 'received'",
    "packed outcomes of a decided submission": "select submission_id from mill.submission_download",
    "packed counts of a decided submission": "select submission_id from mill.submission_extract",
    "a download submission whose rows are not its row_count": """
        select s.submission_id, s.state, s.row_count, (select count(*) from mill.download d where d.submission_id = s.submission_id)
          from mill.submission s join mill.task t using (task_id)
         where t.kind = 'download' and case s.state when 'accepted' then s.row_count else 0 end
               <> (select count(*) from mill.download d where d.submission_id = s.submission_id)""",
    "an extraction whose counts are not its row_count": f"""
        select s.submission_id, s.row_count, c.* from mill.submission s join mill.task t using (task_id),
               lateral (select coalesce(sum(count) filter (where stage = 'links'), 0) as links,
                               coalesce(sum(count) filter (where stage in ('pair', 'duplicate', 'dropped')), 0) as ends,
                               coalesce(sum(count) filter (where stage = 'pair'), 0) as pairs
                          from mill.wat_count w where w.submission_id = s.submission_id) c
         where t.kind = 'extract' and s.state = 'accepted' and {COUNTS.format("s")}
           and (s.row_count <> c.links or c.links <> c.ends
                or c.pairs <> (select count(*) from mill.pair p where p.submission_id = s.submission_id))""",
    "a file that was not extracted exactly once": f"""
        select t.wat_id, count(s.submission_id) from mill.task t left join mill.submission s
            on s.task_id = t.task_id and s.state = 'accepted' and {COUNTS.format("s")}
         where t.kind = 'extract' group by 1 having count(s.submission_id) <> 1""",
    "a known URL that is not its pair's": f"""
        select * from (select url_key, batch_id, n from mill.pair p where {COUNTS.format("p")}) p
          full join mill.seen_url k using (url_key, batch_id, n) where p.url_key is null or k.url_key is null""",
    "a batch whose pairs are not its pair_count": """
        select b.batch_id, b.pair_count, count(p.n), max(p.n) from mill.batch b left join mill.pair p using (batch_id)
         group by 1, 2 having b.pair_count <> count(p.n) or max(p.n) <> b.pair_count - 1""",
    "a counting success without exactly one score and embedding": """
        select d.batch_id, d.n, d.attempt, count(x.n) from mill.current_download d
          left join (select s.batch_id, s.n, s.attempt from mill.current_score s
                       join mill.embedding e using (batch_id, n, attempt, model_id, submission_id)) x using (batch_id, n, attempt)
         where d.outcome = 0 group by 1, 2, 3 having count(x.n) <> 1""",
    "a score submission whose rows are not its row_count": """
        select * from (
            select s.submission_id, s.state, s.row_count, case s.state when 'accepted' then s.row_count else 0 end as wanted,
                   (select count(*) from mill.score x where x.submission_id = s.submission_id) as scores,
                   (select count(*) from mill.embedding x where x.submission_id = s.submission_id) as embeddings
              from mill.submission s join mill.task t using (task_id) where t.kind = 'score') x
         where wanted <> scores or wanted <> embeddings""",
    "a thumbnail that nobody needs": "select slot, batch_id, n from mill.thumbnail",
    "a slot that is not empty": "select * from mill.thumbnail_slot where state <> 'empty' or batches <> 0",
    "a crawl's sums that are not its files'": f"""
        select * from (select link_kind, stage, name, sum(count) as files from mill.wat_count c where {COUNTS.format("c")} group by 1, 2, 3) f
          full join (select link_kind, stage, name, count as crawl from mill.crawl_count where stage <> 'files' and count <> 0) c
              using (link_kind, stage, name) where files is distinct from crawl""",
    **DIFFERENCES,
}  # fmt: skip
NUMBERS = {
    "urls": f"select count(distinct url) from mill.pair p where {COUNTS.format('p')}",
    "pairs": "select count(*) from mill.pair",
    "downloads": "select count(*) from mill.download",
    "scores": "select count(*) from mill.score",
    "highest attempt": "select max(attempt) from mill.download",
    "most attempts": "select max(attempts) from mill.task",
    "withdrawn": "select count(*) from mill.withdrawn",
    "instances": "select count(*) from mill.instance",
    "leases": "select jsonb_object_agg(ended_as, n) from (select coalesce(ended_as, 'live') as ended_as, count(*) as n from mill.lease group by 1) x",
    "submissions": "select jsonb_object_agg(state, n) from (select state, count(*) as n from mill.submission group by 1) x",
}
# what the server's log may say, for our faults make it; anything else is a problem
EXPECTED = re.compile(
    "lease N is not held|task N is not complete|a position is not of this task|rows were announced"
    "|terminating connection due to administrator command|the database system is"
    "|worker .* was disabled|is not permitted to log in|too many connections for role"
    "|terminating connection because of crash|canceling authentication"
    # of a login that was disabled: its next call, before it asks why
    r"|permission denied for function \w+_vN"
    # both of a client that goes away in the middle of a COPY, as one that is killed does
    "|unexpected EOF on client connection|protocol synchronization was lost"
)


def check(server: Server, plan: Plan, report: Report) -> None:
    """Every book must balance."""
    for what, query in BOOKS.items():
        if found := server.db.rows(query):
            report.problems.append(f"{what}: {len(found)}, the first are {found[:3]}")
    report.database = {what: server.db.value(query) for what, query in NUMBERS.items()}
    if report.database["urls"] != plan.urls:
        report.problems.append(f"{report.database['urls']} URLs count, not {plan.urls}")


def read_logs(server: Server, crowd: Crowd, report: Report) -> None:
    """What clients did beside our faults, and what nobody should have said."""
    for place in crowd.places:
        text = crowd.log(place).read_text(errors="replace")
        if "Traceback" in text:
            start = text.index("Traceback")
            report.problems.append(f"{place.name} said: {text[start : start + 2000]}")
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                report.clients[said["what"]][said["answer"]] += 1
                if said["wrong"]:
                    report.problems.append(f"{place.name}: {said['what']}: {said['answer']}")
    report.server = server.complaints()
    for words, times in report.server.items():
        if not EXPECTED.search(words):
            report.problems.append(f"the server's log, {times} times: {words}")

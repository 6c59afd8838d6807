-- Views of workers: what was accepted from each, and how it was checked.

-- Each column is a query of its own, so that one that is not asked for is not read: submissions are millions.
create view report.worker as
select w.name, w.kind, w.added_at, w.disabled_at,
       (select max(i.started_at) from mill.instance i where i.worker_id = w.worker_id) as started_at,
       (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) as live_leases,
       (select coalesce(sum(s.row_count), 0)::bigint from mill.submission s
         where s.worker_id = w.worker_id and s.state = 'accepted'
           and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)) as rows_accepted,
       w.network, w.proven_at, w.streak, w.agreement, w.stopped_because,
       nullif(concat_ws('; ', w.stopped_because, w.disabled_because), '') as disabled_because,
       (select i.version from mill.instance i where i.worker_id = w.worker_id order by i.last_seen_at desc, i.instance_id desc limit 1) as version,
       (select max(i.last_seen_at) from mill.instance i where i.worker_id = w.worker_id) as last_seen_at,
       array(select concat_ws(' ', t.kind || case when t.is_replica then ' check' when t.for_model_id is not null then ' backfill' else '' end || ' of',
                              'WAT file ' || t.wat_id, 'batch ' || t.batch_id, 'item ' || t.item_id)
               from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
              where i.worker_id = w.worker_id and l.ended_at is null order by l.lease_id) as holds
  from mill.worker w;
comment on view report.worker is 'Workers, with the number of rows accepted from each.';
comment on column report.worker.name is 'Display name';
comment on column report.worker.kind is 'Kind of login: extract, download, score and so on claim tasks; a steward claims none';
comment on column report.worker.added_at is 'When it was added';
comment on column report.worker.disabled_at is 'When it was disabled; null while it may work';
comment on column report.worker.started_at is 'When its newest process started';
comment on column report.worker.live_leases is 'Tasks that it holds now';
comment on column report.worker.rows_accepted is 'Rows accepted and not withdrawn: links, outcomes or scores';
comment on column report.worker.network is 'The network that it connects from, in the admin''s words';
comment on column report.worker.proven_at is 'When the worker was proven: others rely on the robots.txt that it read; null while it is not';
comment on column report.worker.streak is 'Replications in a row that agreed; null: an admin vouches for it, and it is not checked';
comment on column report.worker.agreement is 'Share of its replicated downloads that others found alike, a moving average';
comment on column report.worker.stopped_because is 'Reason, if replication stopped it and not an admin; else null';
comment on column report.worker.disabled_because is 'Reason, replication''s or the admin''s, which the worker is told; null where none was given';
comment on column report.worker.version is 'Version of Pairmill of its process that was seen last; null: none ever was';
comment on column report.worker.last_seen_at is 'When it last registered, asked for work or said that it is at work, up to half a minute late';
comment on column report.worker.holds is 'The tasks that it holds';

create view report.leaderboard as
select rank() over (order by u.urls desc) as rank, u.name, u.urls, u.urls_last_day
  from (select w.name, sum(s.row_count)::bigint as urls,
               coalesce(sum(s.row_count) filter (where s.decided_at > now() - interval '1 day'), 0)::bigint as urls_last_day
          from mill.worker w
          join mill.submission s using (worker_id)
         where w.kind = 'download' and s.state = 'accepted'
           and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)
         group by w.worker_id) u;
comment on view report.leaderboard is 'Download workers by the URLs that were accepted from them and still count.';
comment on column report.leaderboard.rank is '1 for the worker with most URLs';
comment on column report.leaderboard.name is 'The worker''s name';
comment on column report.leaderboard.urls is 'URLs accepted and not withdrawn';
comment on column report.leaderboard.urls_last_day is 'Of these, in the last 24 hours';

create view report.replication as
select r.replication_id, w.name as worker, t.batch_id, t.attempt,
       case when r.replica_task_id is null then 'gold_questions' else 'replica' end as kind,
       r.state, r.compared, r.agreed, r.opened_at, r.decided_at
  from mill.replication r
  join mill.worker w using (worker_id)
  join mill.task t using (task_id);
comment on view report.replication is 'Checks of workers'' downloads, by a replica or by gold questions.';
comment on column report.replication.replication_id is 'Key';
comment on column report.replication.worker is 'The checked worker';
comment on column report.replication.batch_id is 'The batch whose download is checked';
comment on column report.replication.attempt is 'Which download of the batch, as in report.pair.attempt';
comment on column report.replication.kind is 'replica: another worker''s repeat of a sample; gold_questions: URLs with known answers';
comment on column report.replication.state is 'open, disputed (a third worker decides), agreed, failed or void (nothing could be told)';
comment on column report.replication.compared is 'URLs that could be compared';
comment on column report.replication.agreed is 'Of those, URLs that ended alike';
comment on column report.replication.opened_at is 'When it was drawn';
comment on column report.replication.decided_at is 'When it was decided';

-- Batch by batch, as report.sample.
create view report.wrong_thumbnail as
with apart as (select)
select w.name as worker, sum(c.thumbnails)::bigint as thumbnails, sum(c.wrong)::bigint as wrong
  from mill.batch b
 cross join lateral (
       select coalesce(r.submission_id, d.submission_id) as submission_id, count(*) as thumbnails, count(*) filter (where s.outcome = 3) as wrong
         from mill.score s
         left join (select distinct on (e.n) e.n, e.attempt, e.submission_id
                      from mill.current_download e where e.batch_id = b.batch_id order by e.n) d on d.n = s.n
         left join (select x.submission_id, t.attempt
                      from mill.task t join mill.submission x using (task_id)
                     where t.kind = 'score' and t.batch_id = b.batch_id offset 0) g on g.submission_id = s.submission_id
         left join mill.refetch r on r.batch_id = b.batch_id and r.n = s.n and r.attempt = g.attempt  -- the thumbnail came in a backfill
        where s.batch_id = b.batch_id and case when s.attempt = d.attempt then true end
          and (exists (select from mill.withdrawn x where x.submission_id = s.submission_id)) is not true
        group by 1
       offset 0) c
  join mill.submission u on u.submission_id = c.submission_id
  join mill.worker w on w.worker_id = u.worker_id
 group by w.worker_id, w.name;
comment on view report.wrong_thumbnail is
    'Thumbnails by download worker, and how many of them show something else than the image whose hash came with them. Reads every score.';
comment on column report.wrong_thumbnail.worker is 'The download worker';
comment on column report.wrong_thumbnail.thumbnails is 'Its thumbnails that were scored, once for each model';
comment on column report.wrong_thumbnail.wrong is 'Of those, the ones whose dHash is far from the hash that came with them';

create view report.ended_session as
select e.ended_session_id, e.at, w.name as worker, e.state, e.seconds
  from mill.ended_session e
  left join mill.worker w using (login);
comment on view report.ended_session is 'Sessions that the watchdog has ended, of the last 30 days, 10,000 at most: of workers that left a transaction open, or are disabled.';
comment on column report.ended_session.ended_session_id is 'Key; later is higher';
comment on column report.ended_session.at is 'When it was ended';
comment on column report.ended_session.worker is 'The worker''s name; null where it is gone';
comment on column report.ended_session.state is 'What it did: idle in transaction, active; idle, of a disabled login; empty where that was not known';
comment on column report.ended_session.seconds is 'So long its transaction was open; of a session without one, the session';

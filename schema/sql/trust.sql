-- Trust: replication of downloads, gold questions, and their consequences. After BOINC's adaptive replication
-- (https://github.com/BOINC/boinc/wiki/AdaptiveReplication): tasks of a worker that has agreed fewer than 10 times in a
-- row (its streak) are always replicated, others once in as many tasks as the streak is long, and a failure begins the
-- streak anew. A replica repeats a sample and not the batch: 50 of 10,000 URLs cost 0.5 %, and a worker that lies about
-- every second one passes with a probability below 1e-6 (docs/trust.md has the simulation).

create function mill.assign_gold_questions(t mill.task, p_lease_id bigint) returns void
language sql
as $$
    -- by the task, and not by chance: a worker that claims, releases and claims again would see them change
    insert into mill.assignment (lease_id, gold_places, gold_question_ids)
    select p_lease_id, '{}', array_agg(c.gold_question_id)
      from (select gold_question_id from mill.gold_question
             order by hashint8extended(gold_question_id, t.task_id)
             limit (select least(gold_questions_per_lease,
                                 coalesce(cardinality(t.positions), (select pair_count from mill.batch where batch_id = t.batch_id)) / 20)
                      from mill.setting)) c
    having count(*) > 0
$$;
comment on function mill.assign_gold_questions is 'Chooses the gold questions of a download lease, if there are any.';

create function mill.shuffle(t mill.task, p_lease_id bigint) returns void
language sql
as $$
    update mill.assignment a
       set positions = x.positions, gold_places = x.places, gold_question_ids = x.ids
      from (select array_agg(m.n order by m.place) as positions,
                   array_agg(m.place::integer) filter (where m.gold_question_id is not null) as places,
                   array_agg(m.gold_question_id) filter (where m.gold_question_id is not null) as ids
              from (select h.n, h.gold_question_id, row_number() over (order by random()) - 1 as place
                      from (select d.n, null::integer as gold_question_id from mill.to_download(t) d
                            union all
                            select null, unnest(b.gold_question_ids) from mill.assignment b where b.lease_id = p_lease_id) h) m) x
     where a.lease_id = p_lease_id and a.positions is null
$$;
comment on function mill.shuffle is 'Puts the URLs left of a task, and the gold questions of its lease, in random order; once a lease.';

create function mill.take_gold_answers(
    p_lease_id bigint, p_places integer[], p_outcome smallint[], p_sha256 bytea[], p_dhash bigint[]
) returns integer[]
language plpgsql
as $$
declare
    a mill.assignment;
    n integer[];
begin
    select * into a from mill.assignment where lease_id = p_lease_id;
    if exists (
        select from unnest(p_places) p (place)
          left join unnest(a.positions) with ordinality as h (n, number) on h.number = p.place + 1
         where h.n is null and not p.place = any (a.gold_places)
    ) then
        perform mill.refuse('PM003', 'a position is not of this task, is given twice, or was submitted already');
    end if;
    n := array(select h.n from unnest(p_places) with ordinality as p (place, number)
                 left join unnest(a.positions) with ordinality as h (n, number) on h.number = p.place + 1
                order by p.number);
    if array_position(n, null) is null then
        return n;
    end if;
    with answer as (
        select k.gold_question_id, mill.is_right(c, r.outcome, r.sha256, r.dhash) as is_right
          from unnest(p_places, p_outcome, p_sha256, p_dhash) as r (place, outcome, sha256, dhash)
          join unnest(a.gold_places, a.gold_question_ids) as k (place, gold_question_id) using (place)
          join mill.gold_question c using (gold_question_id)
    ), counted as (
        -- a gold question is in many leases at once: an answer to one that an open transaction locks is not counted, so nobody waits
        update mill.gold_question set answers = answers + 1
         where gold_question_id in (select c.gold_question_id from mill.gold_question c where c.gold_question_id in (select gold_question_id from answer)
                                for no key update skip locked)
    ), told as (
        select count(is_right) as compared, count(*) filter (where is_right) as agreed from answer
    )
    update mill.assignment x
       set (gold_places, gold_question_ids) = (
               select coalesce(array_agg(k.place), '{}'), coalesce(array_agg(k.gold_question_id), '{}')
                 from unnest(a.gold_places, a.gold_question_ids) as k (place, gold_question_id)
                where not k.place = any (p_places)),
           compared = x.compared + told.compared, agreed = x.agreed + told.agreed
      from told
     where x.lease_id = p_lease_id;
    return n;
end
$$;
comment on function mill.take_gold_answers is
    'Turns the numbers that a worker was given into positions of the batch, null for a gold question, whose answer is noted. Refuses other numbers.';

-- 10 of 64 bits: as many as re-encoding and scaling change; unrelated images differ in 32 on average
create function mill.look_alike(a bigint, b bigint) returns boolean
language sql immutable parallel safe
return bit_count((a # b)::bit(64)) <= 10;
comment on function mill.look_alike is 'Whether two difference hashes are of the same picture.';

create function mill.is_right(c mill.gold_question, p_outcome smallint, p_sha256 bytea, p_dhash bigint) returns boolean
language sql immutable
as $$
    select case when p_outcome in (50, 51) then null  -- a site may have changed its mind
                when c.sha256 is null then p_outcome <> 0
                else coalesce(p_outcome = 0 and (p_sha256 = c.sha256 or mill.look_alike(p_dhash, c.dhash)), false) end
$$;
comment on function mill.is_right is 'Whether an answer to a gold question is right; null where that cannot be told.';

create function mill.gold_questions_left(p_lease_id bigint) returns bigint
language sql stable
as $$
    select count(*) from mill.assignment a, unnest(a.gold_question_ids) k (gold_question_id) join mill.gold_question using (gold_question_id)
     where a.lease_id = p_lease_id
$$;
comment on function mill.gold_questions_left is 'Number of a lease''s gold questions that were not answered.';

-- Not random(): a worker's complete_v1 may end the task, and the worker could roll it back and draw again until nothing was
-- drawn (pg_stat_xact_all_tables shows it). The microsecond of the steward's acceptance is one that no worker can read.
create function mill.is_drawn(p_streak integer, p_accepted_at timestamptz, p_task_id bigint, p_worker_id integer) returns boolean
language sql stable
return hashint8extended((extract(epoch from p_accepted_at) * 1000000)::bigint, hashint8extended(p_task_id, p_worker_id)) & 9223372036854775807
       < 9223372036854775807 / greatest(p_streak, 1);
comment on function mill.is_drawn is 'Whether a worker''s part of a task is replicated: once in p_streak tasks, and the same at every call.';

create function mill.draw_replications(t mill.task) returns void
language plpgsql
as $$
declare
    s mill.setting;
    w record;
    sample integer[];
begin
    select * into s from mill.setting;
    if t.is_replica or s.replicated_urls = 0 then
        return;
    end if;
    for w in
        select x.worker_id, x.streak, array_agg(y.submission_id) as submissions, max(max(y.decided_at)) over () as accepted_at
          from mill.submission y join mill.worker x using (worker_id)
         where y.task_id = t.task_id and y.state = 'accepted' and x.disabled_at is null
           and not exists (select from mill.withdrawn z where z.submission_id = y.submission_id)
         group by x.worker_id order by x.worker_id
    loop
        if w.streak is null then
            insert into mill.gold_question (url, sha256, dhash, by_admin)
            select p.url, d.sha256, d.dhash, false
              from (select * from mill.download x
                     where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id = any (w.submissions) and x.outcome = 0
                       and x.n not in (select r.n from mill.removed_positions(t.batch_id) r)
                       and (select count(*) from mill.gold_question where not by_admin) < 1000
                     order by random() limit 5) d
              join mill.pair p using (batch_id, n)
            on conflict do nothing;
        elsif (w.streak < 10 or mill.is_drawn(w.streak, w.accepted_at, t.task_id, w.worker_id))
              -- with 20 undecided another one tells nothing new, and costs some worker its time
              and (select count(*) from mill.replication r where r.worker_id = w.worker_id and r.state in ('open', 'disputed')) < 20 then
            sample := array(
                select d.n
                  from (select x.n from mill.download x
                         where x.batch_id = t.batch_id and x.attempt = t.attempt and x.submission_id = any (w.submissions)
                         order by random() limit s.replicated_urls) d
                 where d.n not in (select r.n from mill.removed_positions(t.batch_id) r));
            if cardinality(sample) >= 5 then  -- fewer tell nothing
                insert into mill.replication (worker_id, task_id, replica_task_id)
                values (w.worker_id, t.task_id, mill.queue_replica(t, sample, array[w.worker_id]));
            end if;
        end if;
    end loop;
end
$$;
comment on function mill.draw_replications is
    'Once a download task is done: draws which of its workers'' parts are replicated, and some gold questions from a part of a worker that an admin '
    'vouches for.';

create function mill.queue_replica(t mill.task, p_positions integer[], p_avoid integer[]) returns bigint
language sql
as $$
    insert into mill.task (kind, batch_id, attempt, positions, is_replica, avoid_workers)
    values ('download', t.batch_id, mill.next_attempt(t.batch_id), p_positions, true, p_avoid)
    returning task_id
$$;
comment on function mill.queue_replica is 'Queues a replica, a repeat of these positions, for a worker that is a stranger to p_avoid.';

-- The replica's own trouble is not held against the checked worker: a success against a replica's failure counts only
-- where that failure is final. Two failures tell nothing: two workers that do no work report them of everything (it
-- left 0.6 % of lies in the simulation). report.dead_link decides whether a link is dead.
create function mill.compare(p_task_id bigint, p_replica_id bigint, p_worker_id integer, out compared integer, out agreed integer)
language sql stable
as $$
    with who as materialized (
        select coalesce(p_worker_id, mill.replicated_by(p_task_id)) as checked, mill.replicated_by(p_replica_id) as checker
    )
    select count(alike), count(*) filter (where alike)
      from who
      join mill.task t on t.task_id = p_task_id
      join mill.task r on r.task_id = p_replica_id
      join mill.download a on a.batch_id = t.batch_id and a.attempt = t.attempt
      join mill.submission s on s.submission_id = a.submission_id and s.worker_id = who.checked
      join mill.download b on b.batch_id = r.batch_id and b.attempt = r.attempt and b.n = a.n
      join mill.submission v on v.submission_id = b.submission_id and v.worker_id = who.checker
      join mill.outcome ob on ob.code = b.outcome
     cross join lateral (select case
           when a.outcome = 0 and b.outcome = 0 then a.sha256 = b.sha256 or mill.look_alike(a.dhash, b.dhash)
           when b.outcome = 0 then false
           when a.outcome = 0 and not ob.retry and b.outcome <> 50 then false
       end as alike) x
$$;
comment on function mill.compare is
    'Compares the downloads of a task (of one worker; null: of the worker that did most of it) with those of its replica: with the rows of the '
    'worker that did most of the replica, since one that was given back may hold a part of another worker''s.';

create function api.judge_replications_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    w mill.worker := mill.me('steward');
    r mill.replication;
    judged integer := 0;
    late integer := 0;
begin
    begin
        lock table mill.replication in share update exclusive mode nowait;  -- two stewards would lock in two orders
    exception when lock_not_available then
        return 0;
    end;
    for r in
        select x.* from mill.replication x
         where x.state in ('open', 'disputed')
           and (x.replica_task_id is null
                or exists (select from mill.task t
                            where t.task_id = coalesce(x.second_replica_task_id, x.replica_task_id) and t.state in ('done', 'discarded')))
         order by x.replication_id limit 20
    loop
        begin
            judged := judged + 1;
            exit when mill.judge(r);  -- lock order: a batch after tasks; the next replication's tasks would come after this one's batch
        exception when lock_not_available or deadlock_detected then
            judged := judged - 1;
            late := late + 1;
            perform mill.end_idle(array[r.worker_id, mill.replicated_by(r.replica_task_id)]);
            exit when late = 3;
        end;
    end loop;
    return judged;
end
$$;
comment on function api.judge_replications_v1 is
    'Judges replications whose replicas are done; one at most that queues or takes back tasks. Returns how many. Waits for nobody: a replication '
    'whose rows an open transaction holds is left to the next round.';

create function mill.end_idle(p_workers integer[]) returns void
language sql
as $$
    select pg_terminate_backend(a.pid)
      from pg_stat_activity a join mill.worker x on x.login = a.usename
     where x.worker_id = any (p_workers) and a.state like 'idle in transaction%'
       and pg_has_role(current_user, 'pg_signal_backend', 'usage')
$$;
comment on function mill.end_idle is
    'Ends the sessions of workers that keep a transaction open, so that no worker holds up its own verdict. Does nothing without the right of `pairmill db secure`.';

create function api.sweep_gold_questions_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
begin
    delete from mill.gold_question c
     where c.gold_question_id in (select x.gold_question_id from mill.gold_question x where not x.by_admin for update skip locked)
       and (c.answers >= 3 or c.added_at < now() - interval '7 days'  -- known to workers by then, or stale
            or mill.is_removed(c.url, c.sha256));
    get diagnostics swept = row_count;
    return swept;
end
$$;
comment on function api.sweep_gold_questions_v1 is 'Deletes drawn gold questions that are worn out (3 answers, 7 days), or that a removal names.';

create function mill.judge(r mill.replication) returns boolean
language plpgsql
as $$
declare
    least_share constant real := (select agreement_min from mill.setting);
    last mill.task;
    found record;
    verdict text := 'void';
begin
    select r.compared, r.agreed into found;
    if r.replica_task_id is not null then
        select * into last from mill.task where task_id = coalesce(r.second_replica_task_id, r.replica_task_id);
        found := mill.compare(r.task_id, last.task_id, r.worker_id);
    end if;
    if last.state = 'discarded' or found.compared < 5 then
        null;  -- too little to tell
    elsif found.agreed >= least_share * found.compared then
        verdict := 'agreed';
    elsif r.replica_task_id is null or mill.is_vouched(mill.replicated_by(last.task_id)) then
        verdict := 'failed';
    elsif r.state = 'open' then
        perform mill.dispute(r, last);
        return true;
    elsif (select agreed >= least_share * compared and compared >= 5 from mill.compare(r.replica_task_id, r.second_replica_task_id, null)) then
        found := mill.compare(r.task_id, r.replica_task_id, r.worker_id);
        verdict := 'failed';
    end if;
    update mill.replication set state = verdict, compared = found.compared, agreed = found.agreed, decided_at = now()
     where replication_id = r.replication_id;
    if verdict = 'agreed' and r.state = 'disputed' then
        perform mill.blame_replica(r);
    end if;
    -- right answers to gold questions prove little: a worker that remembers URLs knows them
    if verdict = 'failed' or verdict = 'agreed' and r.replica_task_id is not null then
        perform mill.count_replication(r.worker_id, r.task_id, found.compared, found.agreed, r.replica_task_id is null);
    end if;
    if verdict = 'void' and (last.state = 'discarded' or found.compared < 5 and mill.told_little(last)) then
        return mill.ask_again(r, last);
    end if;
    return verdict = 'failed' or verdict = 'agreed' and r.state = 'disputed';
end
$$;
comment on function mill.judge is
    'Judges a replication. Where download and replica do not agree, a third worker''s replica decides which of them was wrong (the quorum is two); '
    'that of a worker that an admin vouches for decides at once. Returns whether tasks were queued or taken back.';

create function mill.told_little(t mill.task) returns boolean
language sql stable
as $$
    select count(*) filter (where o.retry or d.outcome = 50) * 5 > count(*)
      from mill.download d join mill.outcome o on o.code = d.outcome
     where d.batch_id = t.batch_id and d.attempt = t.attempt
$$;
comment on function mill.told_little is 'Whether more than a fifth of a replica''s outcomes are trouble of its own worker.';

create function mill.ask_again(r mill.replication, t mill.task) returns boolean
language plpgsql
as $$
begin
    if (select count(*) from mill.replication x where x.worker_id = r.worker_id and x.task_id = r.task_id and x.state = 'void') >= 3 then
        return false;
    end if;
    insert into mill.replication (worker_id, task_id, replica_task_id)
    values (r.worker_id, r.task_id, mill.queue_replica(t, t.positions, t.avoid_workers));
    return true;
end
$$;
comment on function mill.ask_again is
    'Queues another replica of a sample whose replica told nothing, three times at most: an accomplice that reports only time-outs must not end a '
    'replication.';

create function mill.dispute(r mill.replication, t mill.task) returns void
language sql
as $$
    update mill.replication
       set state = 'disputed',
           second_replica_task_id = mill.queue_replica(t, t.positions, array[r.worker_id, mill.replicated_by(t.task_id)] || array(
               -- where a worker that an admin vouches for is at work, it decides: many liars outvote the honest
               select w.worker_id from mill.worker w
                where w.kind = 'download' and w.streak is not null and w.disabled_at is null
                  and exists (select from (select * from mill.lease order by lease_id desc limit 1000) l
                                join mill.instance i using (instance_id) join mill.worker v on v.worker_id = i.worker_id
                               where l.claimed_at > now() - interval '1 hour' and v.kind = 'download' and v.streak is null)))
     where replication_id = r.replication_id
$$;
comment on function mill.dispute is 'Queues a second replica, for a third worker, where the first did not agree.';

create function mill.blame_replica(r mill.replication) returns void
language plpgsql
as $$
declare
    checker constant integer := mill.replicated_by(r.replica_task_id);
    found record;
begin
    found := mill.compare(r.replica_task_id, r.second_replica_task_id, null);
    insert into mill.replication (worker_id, task_id, replica_task_id, state, compared, agreed, decided_at)
    values (checker, r.replica_task_id, r.second_replica_task_id, 'failed', found.compared, found.agreed, now());
    perform mill.count_replication(checker, r.replica_task_id, found.compared, found.agreed, false);
end
$$;
comment on function mill.blame_replica is 'Counts a replica that turned out to be wrong as a failed replication of the worker that did it.';

create function mill.count_replication(p_worker_id integer, p_task_id bigint, p_compared integer, p_agreed integer, p_by_gold_questions boolean)
returns void
language plpgsql
as $$
declare
    least_share constant real := (select agreement_min from mill.setting);
    share constant real := p_agreed / greatest(p_compared, 1)::real;
    w mill.worker;
begin
    -- a moving average over some five replications: the first one stops a worker that is wrong in everything, none one that is wrong in a tenth
    update mill.worker
       set agreement = 0.7 * agreement + 0.3 * share,
           streak = case when share >= least_share then streak + 1 else 0 end,
           proven_at = case when share < least_share then null when streak >= 9 then coalesce(proven_at, now()) else proven_at end
     where worker_id = p_worker_id and streak is not null
    returning * into w;
    if not found or share >= least_share then
        return;
    end if;
    if w.agreement >= least_share then
        perform mill.take_back(p_worker_id, p_task_id, 'a check of it failed');
        return;
    end if;
    update mill.worker
       set disabled_at = now(), stopped_because = format('others found only %s %% of its downloads alike', round(w.agreement * 100))
     where worker_id = p_worker_id and disabled_at is null;
    -- submissions up to the last task that agreed, of those before this one, stay; not where gold questions failed: accomplices may have agreed
    perform mill.quarantine_worker(
        w.name,
        (select max(s.received_at) + interval '1 microsecond'
           from mill.replication r join mill.submission s on s.task_id = r.task_id and s.worker_id = r.worker_id
          where r.worker_id = p_worker_id and r.state = 'agreed' and r.replica_task_id is not null and not p_by_gold_questions
            and s.received_at < (select min(y.received_at) from mill.submission y
                                  where y.task_id = p_task_id and y.worker_id = p_worker_id and y.state = 'accepted')
            and (select stopped_because is null from mill.worker c
                  where c.worker_id = mill.replicated_by(coalesce(r.second_replica_task_id, r.replica_task_id)))),
        'its worker was stopped: others did not find the same');
end
$$;
comment on function mill.count_replication is
    'Counts a replication''s share of agreement for or against a worker: a failed one takes the task''s downloads back; a bad average stops the worker '
    'and takes back all since the last task before that agreed, or everything where gold questions failed. Applies to a disabled worker, too.';

create function mill.replicate_again(p_stopped_id integer) returns void
language plpgsql
as $$
declare
    r record;
begin
    for r in
        select x.worker_id, x.task_id, t as repeat
          from mill.submission s
          join mill.replication x on s.task_id = coalesce(x.second_replica_task_id, x.replica_task_id)
          join mill.task t on t.task_id = s.task_id
          join mill.worker w on w.worker_id = x.worker_id
         where s.worker_id = p_stopped_id and t.is_replica and x.state = 'agreed' and w.disabled_at is null
           and not mill.detached(t.batch_id)
           and not exists (select from mill.replication y where y.worker_id = x.worker_id and y.task_id = x.task_id and y.replication_id > x.replication_id)
         order by x.replication_id desc limit 20
    loop
        insert into mill.replication (worker_id, task_id, replica_task_id)
        values (r.worker_id, r.task_id, mill.queue_replica(r.repeat, (r.repeat).positions, array[r.worker_id, p_stopped_id]));
    end loop;
end
$$;
comment on function mill.replicate_again is 'Replicates again the downloads that agreed with replicas of a stopped or quarantined worker: liars have accomplices.';

create function mill.take_back(p_worker_id integer, p_task_id bigint, why text) returns void
language plpgsql
as $$
declare
    s mill.submission;
begin
    perform from mill.task where task_id = p_task_id for update;
    for s in select * from mill.submission where task_id = p_task_id and worker_id = p_worker_id and state = 'received' for update loop
        perform mill.reject(s, why);
    end loop;
    perform mill.withdraw_downloads(array(
        select submission_id from mill.submission where task_id = p_task_id and worker_id = p_worker_id and state = 'accepted'), why);
end
$$;
comment on function mill.take_back is 'Rejects and withdraws one worker''s submissions for one download task; their URLs are queued again.';

-- Checks at the start of each function that workers call.
--
-- SQLSTATEs, all of class PM; workers turn the message into one sentence:
--   PM001  the lease is not held (any more): drop the work
--   PM002  this login is no worker, is disabled, or is of another kind
--   PM003  an argument or a submission is malformed; nothing was changed
--   PM004  this worker is too old
--   PM005  the task is not complete
--   PM006  the model is not known or not active
--   PM007  a page's bound on a day is reached: later

create function mill.refuse(code text, message text) returns void
language plpgsql
as $$
begin
    raise exception using errcode = code, message = message;
end
$$;
comment on function mill.refuse is 'Raises message under SQLSTATE code.';

create function mill.why_disabled(w mill.worker) returns text
language sql stable
as $$
    select format('worker %s was %s on %s UTC%s; ask the admin', w.name,
                  case when w.stopped_because is null then 'disabled by an admin' else 'stopped' end,
                  to_char(w.disabled_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
                  ': ' || nullif(concat_ws('; ', w.stopped_because, w.disabled_because), ''))
     where w.disabled_at is not null
$$;
comment on function mill.why_disabled is 'The sentence for a worker that may not work: since when, and why. Null for one that may.';

-- Where refusing would lose work: the tables take no control characters (schema/tables/base.py has the same ones).
create function mill.plain(said text) returns text
language sql immutable parallel safe
return regexp_replace(regexp_replace(said, '[\s\u001c-\u001f\u0085\u2028\u2029]+', ' ', 'g'),
                      '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]', U&'\FFFD', 'g');
comment on function mill.plain(text) is 'A text as one line: a space for each run of white space, U+FFFD for each control character.';

create function mill.plain(said text[]) returns text[]
language sql immutable parallel safe
return (select coalesce(array_agg(mill.plain(x.each) order by x.place), said) from unnest(said) with ordinality x (each, place));
comment on function mill.plain(text[]) is 'Each text of an array as one line.';

-- Identity is session_user, never an argument.
create function mill.me(wanted_kind text default null) returns mill.worker
language plpgsql stable
as $$
declare
    w mill.worker;
begin
    select * into w from mill.worker where login = session_user;
    if not found then
        perform mill.refuse('PM002', 'this login is not a worker; an admin makes one with: pairmill worker add NAME --kind KIND');
    elsif w.disabled_at is not null then
        perform mill.refuse('PM002', mill.why_disabled(w));
    elsif wanted_kind is not null and w.kind <> wanted_kind then
        perform mill.refuse('PM002', format('worker %s is of kind %s, not %s', w.name, w.kind, wanted_kind));
    end if;
    return w;
end
$$;
comment on function mill.me is 'The calling worker; refused where the login is none, is disabled, or is of another kind.';

create function mill.is_vouched(p_worker_id integer) returns boolean
language sql stable
as $$
    select exists (select from mill.worker where worker_id = p_worker_id and streak is null)
$$;
comment on function mill.is_vouched is 'Whether an admin vouches for a worker: a replica of it decides at once.';

create function mill.is_stranger(p_worker_id integer, p_avoid integer[], p_is_replica boolean) returns boolean
language sql stable
as $$
    select not p_worker_id = any (p_avoid)
       and (p_is_replica and mill.is_vouched(p_worker_id)
            or not exists (select from mill.worker w join mill.worker a on a.network = w.network
                            where w.worker_id = p_worker_id and a.worker_id = any (p_avoid)))
$$;
comment on function mill.is_stranger is
    'Whether a worker is none of these, nor of the network of one; where no network is known, another login is enough. For replicas, a worker '
    'that an admin vouches for is a stranger in any network.';

create function mill.replicated_by(p_task_id bigint) returns integer
language sql stable
as $$
    select worker_id from mill.submission where task_id = p_task_id and state = 'accepted'
     group by worker_id order by sum(row_count) desc, worker_id limit 1
$$;
comment on function mill.replicated_by is 'The worker that did a task (a replica, say), or most of it.';

-- One replica at a time, and none for an hour after one that came to nothing: else one login could hold all of them.
create function mill.may_replicate(p_worker_id integer) returns boolean
language sql stable
as $$
    select mill.is_vouched(p_worker_id)
        or not exists (select from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
                        where i.worker_id = p_worker_id and l.ended_at is null and t.is_replica)
       and not exists (select from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
                        where i.worker_id = p_worker_id and l.ended_as <> 'completed' and l.ended_at > now() - interval '1 hour' and t.is_replica)
       and not exists (select from mill.replication r
                        where r.state = 'void' and r.decided_at > now() - interval '1 hour'
                          and mill.replicated_by(coalesce(r.second_replica_task_id, r.replica_task_id)) = p_worker_id)
$$;
comment on function mill.may_replicate is
    'Whether a worker is given a replica: it holds no other, and in the last hour it gave none back, failed or lost none, and none that it did '
    'was void. Always true of a worker that an admin vouches for.';

-- Lock order of every function: a task's row first, then its lease; so no deadlock.
create function mill.require_lease(p_lease_id bigint, wanted_kind text) returns mill.task
language plpgsql
as $$
declare
    w mill.worker := mill.me(wanted_kind);
    t mill.task;
begin
    select t0.* into t
      from mill.task t0
      join mill.lease l on l.task_id = t0.task_id
     where l.lease_id = p_lease_id
       for update of t0;
    if not found or not exists (
        select
          from mill.lease l
          join mill.instance i on i.instance_id = l.instance_id
         where l.lease_id = p_lease_id
           and i.worker_id = w.worker_id
           and l.ended_at is null
           and l.expires_at > clock_timestamp()
    ) then
        perform mill.refuse('PM001', format('lease %s is not held: it ended, it was late, or it is another worker''s', p_lease_id));
    end if;
    return t;
end
$$;
comment on function mill.require_lease is 'Locks and returns the task of a live lease of the caller''s; refused otherwise.';

create function mill.end_lease(p_lease_id bigint, how text) returns void
language sql
as $$
    update mill.lease set ended_at = clock_timestamp(), ended_as = how where lease_id = p_lease_id and ended_at is null;
    with over as (delete from mill.assignment where lease_id = p_lease_id returning lease_id, compared, agreed)
    insert into mill.replication (worker_id, task_id, compared, agreed)
    select i.worker_id, l.task_id, o.compared, o.agreed
      from over o join mill.lease l using (lease_id) join mill.instance i using (instance_id)
     where o.compared > 0
$$;
comment on function mill.end_lease is 'Ends a lease, once; the answers to its gold questions become a replication that waits to be judged.';

-- Back to the queue after a failure; discarded when it failed too often or no retry can help.
create function mill.requeue(p_task_id bigint, why text, retry boolean) returns void
language sql
as $$
    update mill.task t
       set state = case when not retry or t.attempts + 1 >= s.max_attempts then 'discarded' else 'ready' end,
           attempts = t.attempts + 1,
           ready_at = now() + make_interval(secs => s.retry_seconds * 2 ^ least(t.attempts, 10)),
           reason = mill.plain(left(why, 1000)),
           changed_at = now()
      from mill.setting s
     where t.task_id = p_task_id
$$;
comment on function mill.requeue is 'Returns a task to the queue with back-off, or discards it.';

create function mill.redo_task(t mill.task, why text) returns void
language sql
as $$
    update mill.task
       set state = case when x.retired then 'discarded' else 'ready' end, attempts = 0, excused = 0, ready_at = now(),
           reason = case when x.retired then 'its model was retired' else mill.plain(left(why, 1000)) end, changed_at = now()
      from (select exists (select from mill.model m where m.model_id = t.model_id and m.retired_at is not null) as retired) x
     where task_id = t.task_id and state in ('done', 'discarded')
$$;
comment on function mill.redo_task is 'Queues a task again that had ended, as if it were new; one of a retired model is discarded.';

create function mill.sample_id(batch_id bigint, n integer) returns bigint
language sql immutable parallel safe
return (batch_id << 14) | n;
comment on function mill.sample_id is 'A pair''s stable id: batch_id * 16,384 + n.';

create function mill.allow(p_worker_kind text, variadic p_functions text[]) returns void
language plpgsql
as $$
declare
    f text;
begin
    foreach f in array p_functions loop
        execute format('grant execute on function %s to %I', f::regproc, left(current_database(), 40) || '_' || p_worker_kind);
    end loop;
end
$$;
comment on function mill.allow is 'Grants EXECUTE on functions to the workers of a kind.';

-- No grant on the column worker: the server fills it in, so no worker forges another's rows.
create function mill.allow_copy(p_worker_kind text, p_inbox regclass, p_columns text) returns void
language plpgsql
as $$
declare
    role constant text := left(current_database(), 40) || '_' || p_worker_kind;
begin
    execute format('grant usage on schema inbox to %I', role);
    execute format('grant insert (%s) on %s to %I', p_columns, p_inbox, role);
end
$$;
comment on function mill.allow_copy is 'Grants INSERT on columns of an inbox to the workers of a kind.';

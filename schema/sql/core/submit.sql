-- The start of a submission, of any kind of work.

-- The answer to a part that was submitted already: a repeat (the reply was lost) is no second submission.
create function mill.earlier_submission(p_lease_id bigint, p_part integer) returns bigint
language sql stable
as $$
    select submission_id from mill.submission where lease_id = p_lease_id and part = p_part
$$;
comment on function mill.earlier_submission is 'The submission of this lease and part, if there is one.';

create function mill.record_submission(t mill.task, p_lease_id bigint, p_part integer, p_rows integer, p_successes integer default 0) returns bigint
language sql
as $$
    insert into mill.submission (task_id, lease_id, part, worker_id, row_count, success_count)
    select t.task_id, p_lease_id, p_part, i.worker_id, p_rows, p_successes
      from mill.lease l join mill.instance i using (instance_id)
     where l.lease_id = p_lease_id
    returning submission_id
$$;
comment on function mill.record_submission is 'Records a submission as received.';

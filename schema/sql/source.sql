-- WAT files taken back. One that nobody has begun is deleted; of another the row stays, since its submissions and pairs name
-- it, and its task is done for. Both may be added again.

create function mill.remove_wats(
    p_wat_ids bigint[], why text,
    out files bigint, out leases bigint, out submissions bigint, out extractions bigint, out pairs bigint
)
language plpgsql
as $$
#variable_conflict use_column
declare
    untouched bigint[];
    t mill.task;
    s mill.submission;
begin
    leases := 0;
    submissions := 0;
    extractions := 0;
    pairs := 0;
    -- lock order of every function: tasks, by number, before leases and submissions
    perform from mill.task where wat_id = any (p_wat_ids) order by task_id for update;
    untouched := array(
        select f.wat_id from mill.wat_file f
         where f.wat_id = any (p_wat_ids)
           and not exists (select from mill.task x join mill.lease l using (task_id) where x.wat_id = f.wat_id));
    delete from mill.task where wat_id = any (untouched);
    delete from mill.wat_file where wat_id = any (untouched);
    for t in
        select x.* from mill.task x join mill.wat_file f using (wat_id)
         where x.wat_id = any (p_wat_ids) and f.removed_at is null order by x.task_id
    loop
        perform mill.end_lease(l.lease_id, 'expired') from mill.lease l where l.task_id = t.task_id and l.ended_at is null;
        leases := leases + (t.state = 'leased')::integer;
        for s in
            select x.* from mill.submission x
             where x.task_id = t.task_id and x.state in ('received', 'accepted')
               and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id)
             order by x.submission_id for update
        loop
            if s.state = 'received' then
                perform mill.reject(s, why);
                submissions := submissions + 1;
            else
                pairs := pairs + (select coalesce(sum(c.count), 0) from mill.wat_count c where c.submission_id = s.submission_id and c.stage = 'pair');
                perform mill.withdraw(s.submission_id, why);
                extractions := extractions + 1;
            end if;
        end loop;
        update mill.task set state = 'done', reason = mill.plain(why), changed_at = now() where task_id = t.task_id and state <> 'done';
    end loop;
    update mill.wat_file set removed_at = now() where wat_id = any (p_wat_ids) and removed_at is null;
    get diagnostics files = row_count;
    files := files + cardinality(untouched);
    delete from mill.crawl c
     where not exists (select from mill.wat_file f where f.crawl_id = c.crawl_id)
       and not exists (select from mill.crawl_count x where x.crawl_id = c.crawl_id);
end
$$;
comment on function mill.remove_wats is
    'Takes WAT files back: ends their leases, rejects submissions that await acceptance, withdraws their extractions, whose pairs do not count any '
    'more and whose URLs may come in again. A file that nobody has begun is deleted.';

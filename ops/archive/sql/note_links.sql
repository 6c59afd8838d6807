-- Notes the pairs whose hosts or prefixes removals name, as mill.find_removed_hosts does.

insert into mill.removed_pair (batch_id, n, removal_id)
select x.sample_id >> 14, (x.sample_id & 16383)::integer, r.removal_id
  from unnest(%(samples)s::bigint[], %(removals)s::bigint[]) as x (sample_id, removal_id)
  join mill.removal r using (removal_id)
 order by 1, 2, 3
on conflict (batch_id, n, removal_id) do update set submission_id = null

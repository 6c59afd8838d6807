-- What must not be in a release, of the rows that its conditions keep and of the removed ones, in the order of sample_id; the
-- reason is the first of: removed, withdrawn, contaminated or duplicate. What has the bytes of a removed image, or is of its group, is removed too.

create or replace table removed_hash as
select distinct md5, sha256
  from (select sample_id, md5, sha256 from kept union all select sample_id, md5, sha256 from removed_row) known
 where sample_id in (select sample_id from removed);

create or replace table must_go as
select sample_id from removed
union
select sample_id from kept
 where md5 in (select md5 from removed_hash where md5 is not null)
    or sha256 in (select sha256 from removed_hash where sha256 is not null)
    -- found already when the removal was added, but a second lock
    or md5 in (select key from listed_md5) or sha256 in (select key from listed_sha256)
    or unhex(md5(url)) in (select key from listed_md5);

insert into must_go
select g.sample_id
  from duplicate_group g
 where g.representative in (select representative from duplicate_group where sample_id in (select sample_id from must_go))
   and g.sample_id not in (select sample_id from must_go);

create or replace table gone as
select sample_id, min(reason)::smallint as reason, any_value(of) as of, any_value(method) as method
  from (select sample_id, 0 as reason, null::bigint as of, null::varchar as method from must_go
         union all
        select sample_id, 1, null, null from withdrawn
         union all
        select sample_id, 2, of, method from duplicate) found
 group by sample_id
 order by sample_id;

update gone set of = case when reason = 2 then of end, method = case when reason = 2 then method end,
       reason = case reason when 0 then {removed} when 1 then {withdrawn} else case method when 'decontamination' then {contaminated} else {duplicate} end end

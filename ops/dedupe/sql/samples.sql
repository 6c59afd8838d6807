-- Groups of a method with what stands in their rows: in the order of a hash, so that they are of all parts of the pool.
with chosen as (
    select method, of
      from (select distinct method, of from duplicate where of is not null)
   qualify row_number() over (partition by method order by md5(of::varchar)) <= {groups}
)
select d.method, d.of, stays.url as of_url, stays.text as of_text, d.sample_id, goes.url, goes.text
  from chosen
  join duplicate d using (method, of)
  join pool stays on stays.sample_id = d.of
  join pool goes on goes.sample_id = d.sample_id
 order by d.method, d.of, d.sample_id

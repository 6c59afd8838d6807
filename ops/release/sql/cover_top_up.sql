-- What is still wanting of covers, by {cells}: the first by the PRF among the rows of the same {cells}.
insert into cover
with wanting as (
    select {cells}, {covers} * sum(lost) - sum(had) as wanted
      from (select {cells}, 1 as lost, 0 as had from lost
            union all
            select {cells}, 0, 1 from sized semi join cover using (sample_id))
     group by {cells} having wanted > 0
)
select sample_id, {level}
  from (select r.sample_id, w.wanted, row_number() over (partition by {cells} order by prf('cover row ' || r.sample_id), r.sample_id) as place
          from (select * from sized anti join gone using (sample_id) anti join withdrawn using (sample_id) anti join cover using (sample_id)) r
          join wanting w using ({cells}))
 where place <= wanted;

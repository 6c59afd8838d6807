-- For each site that loses some rows, as many twins as are still wanting, which lose as many of the same {alike}.
create or replace temp table spare as
select r.sample_id, r.site, {alike}, s.draw,
       row_number() over (partition by r.site, {alike} order by prf('cover row ' || r.sample_id), r.sample_id) as nth
  from (select * from old_row anti join withdrawn using (sample_id)) r
  join (select site, magnitude, draw from site_size anti join lost_site using (site) anti join twin using (site)) s using (site)
  semi join (select {alike} from cell_demand where wanting > 0) using ({alike});

create or replace temp table paired as
with demand as (
    select *, sum(wanting) over (partition by {alike} order by demand) as upto from cell_demand where wanting > 0
), found as (
    select site, {alike}, any_value(draw) as draw, max(nth) as rows from spare group by site, {alike}
), free as (  -- a site stands for one demand: in the cell of which it has most
    select *, row_number() over (partition by {alike} order by draw, site) as place
      from (from found qualify row_number() over (partition by site order by rows desc, {alike}) = 1)
)
select f.site, {alike}, d.site as of_site, d.demand, d.m
  from free f join demand d using ({alike})
 where f.place > d.upto - d.wanting and f.place <= d.upto;

insert into twin select site, of_site from paired;
update cell_demand set wanting = wanting - (select count(*) from paired p where p.demand = cell_demand.demand);
insert into cover select s.sample_id, 1 from spare s join paired p using (site, {alike}) where s.nth <= p.m;

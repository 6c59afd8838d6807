-- For each site that is emptied, or half of it, as many twins as are still wanting, of the same {alike}, which lose as great a share.
create or replace temp table paired as
with demand as (
    select *, sum(wanting) over (partition by {alike} order by share desc, site) as upto from site_demand where wanting > 0
), free as (
    select s.*, row_number() over (partition by {alike} order by draw, site) as place
      from site_size s anti join lost_site using (site) anti join twin using (site)
      semi join demand using ({alike})
)
select f.site, d.site as of_site, ceil(d.share * f.n) as m
  from free f join demand d using ({alike})
 where f.place > d.upto - d.wanting and f.place <= d.upto;

insert into twin select site, of_site from paired;
update site_demand set wanting = wanting - (select count(*) from paired p where p.of_site = site_demand.site);
insert into cover
select sample_id, 2
  from (select r.sample_id, p.m, row_number() over (partition by r.site order by prf('cover row ' || r.sample_id), r.sample_id) as place
          from (select * from old_row anti join withdrawn using (sample_id)) r join paired p using (site))
 where place <= m;

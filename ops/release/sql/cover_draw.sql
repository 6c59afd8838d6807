-- What covers are drawn for: the rows in table gone, among old_row; and the covers of the same site. Into table cover, whose level is
-- 0 of the same site, 1 of sites that lose as many rows (cover_rows_of_twins.sql), 2 of sites that lose as great a share
-- (cover_emptied_twins.sql), 3 and more what is then wanting (cover_top_up.sql). The PRF orders; {covers} are drawn for a removed row.

create table site_size as
select site, count(*) as n, floor(log2(count(*)))::tinyint as magnitude, quantile_disc(language, 0.5) as language, quantile_disc(punsafe, 0.5) as punsafe,
       prf('cover site ' || site) as draw
  from old_row group by site;

create table sized as select r.*, s.magnitude from old_row r join site_size s using (site);
create table lost as select r.* from sized r semi join gone using (sample_id);
create table lost_site as
select s.*, l.m, s.n >= 4 and 2 * l.m >= s.n as emptied
  from (select site, count(*) as m from lost group by site) l join site_size s using (site);
create table cover (sample_id bigint, level tinyint);
create table twin (site ubigint, of_site ubigint);  -- sites that are used up: each stands for one
create table site_demand as select *, m / n as share, {covers} as wanting from lost_site where emptied;

create table wanted as
select l.site, l.language, l.size, l.punsafe, count(*) as m, any_value(l.magnitude) as magnitude
  from lost l join lost_site s using (site) where not s.emptied
 group by all;
-- 0: where a site's like rows are at least twice as many as go: then it is nothing that they went
create table own as
select w.*
  from wanted w
  join (select site, language, size, punsafe, count(*) as spare
          from old_row semi join wanted using (site) anti join gone using (sample_id) anti join withdrawn using (sample_id)
         group by all) c using (site, language, size, punsafe)
 where c.spare >= 2 * {covers} * w.m;
insert into cover
select sample_id, 0
  from (select r.sample_id, o.m,
               row_number() over (partition by site, language, size, punsafe order by prf('cover row ' || r.sample_id), r.sample_id) as place
          from (select * from old_row anti join gone using (sample_id) anti join withdrawn using (sample_id)) r
          join own o using (site, language, size, punsafe))
 where place <= {covers} * m;
create table cell_demand as select *, row_number() over (order by m desc, site, language, size, punsafe) as demand, {covers} as wanting
  from wanted anti join own using (site, language, size, punsafe);

-- one row of so many, by the hash of its id
create table sample as
select * from release where hash(_id) % $1 = 0 order by _position

-- Sequences, hash partitions, storage and the row of settings, which no declaration of a table holds: run after the
-- tables are made, before the routines.

create sequence mill.lease_number as bigint;
comment on sequence mill.lease_number is 'Lower 40 bits of a lease number.';

create sequence mill.merge_number as bigint;
comment on sequence mill.merge_number is 'Rises with every merge and every withdrawal, before mill.seen_url changes.';
select nextval('mill.merge_number');  -- or the first merge would not change last_value

do $$
begin
    for i in 0 .. 15 loop
        execute format('create table mill.seen_url_h%s partition of mill.seen_url'
                       ' for values with (modulus 16, remainder %s)', lpad(i::text, 2, '0'), i);
        execute format('comment on table mill.seen_url_h%s is %L', lpad(i::text, 2, '0'),
                       format('Remainder %s of 16 of mill.seen_url', i));
    end loop;
end
$$;

-- embeddings do not compress: 1.6 times as many rows a second are written without the attempt; partitions are made alike
alter table mill.embedding alter column image set storage external, alter column text set storage external;

insert into mill.setting (only_row) values (1);
insert into mill.cover_setting (only_row) values (1);

-- What the rows of a folder of facts belong to: its batches, first to last, and WAT files.

select mill.ensure_partitions(g) from generate_series(%(first)s::bigint, %(last)s::bigint, 500) g;
select mill.ensure_partitions(%(last)s);
insert into mill.wat_file (location) select format('%%s.wat.gz', w) from generate_series(1, %(wats)s) w;
insert into mill.batch (batch_id, bucket, pair_count, closed_at)
select b, b %% 32, %(per_batch)s, now() from generate_series(%(first)s::bigint, %(last)s::bigint) b

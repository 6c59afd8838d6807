-- Workers with credit, half of them named; counters of 100 languages; a week of minutes. bench.workers: how many workers.

insert into mill.worker (login, name, kind)
select 'w' || n, 'worker ' || n, 'download' from generate_series(1, current_setting('bench.workers')::integer) n;
insert into mill.credit select worker_id, 100, 10000 * worker_id, 10 from mill.worker;
insert into mill.shown_worker (worker_id) select worker_id from mill.worker where worker_id % 2 = 0;
insert into mill.credit_hour
select mill.hour(now() - h * interval '1 hour'), worker_id, 1, 1000 from mill.worker, generate_series(0, 23) h;
insert into mill.progress (at, files, links, pairs, fetched, succeeded, scored)
select now() - n * interval '1 minute', 90000 - n, 9e9 - n * 1e5, 9e8 - n * 1e4, 8e8 - n * 1e4, 6e8 - n * 8e3, 6e8 - n * 8e3
  from generate_series(1, 11520) n;
insert into mill.funnel_count (link_kind, model_id, language, outcome, count)
select 'image', 0, 'l' || l, o.code, case o.code when -1 then 50000000 when 0 then 30000000 else 100000 end / l
  from generate_series(1, 100) l, (select -1 as code union all select code from mill.outcome) o;
analyze;

select "table", partitions, bytes, live_rows, dead_rows, last_autovacuum from report.table_size order by bytes desc, 1 limit 100

select "table" as name, bytes, live_rows, dead_rows from report.table_size order by bytes desc, name limit 4

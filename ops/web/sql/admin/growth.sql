-- Bytes of the database, and of WAL since it was made.

select extract(epoch from clock_timestamp())::double precision as at, pg_database_size(current_database())::bigint as bytes,
       case when pg_is_in_recovery() then null else (pg_current_wal_lsn() - '0/0')::bigint end as wal

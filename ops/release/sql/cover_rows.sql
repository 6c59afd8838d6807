-- The rows of a release by what covers are matched on: site, language, size and punsafe. {url} and so on: the layout's columns, or a constant.
create table old_row as
with read as (
    select {id} as sample_id,
           string_split(regexp_replace(lower(split_part(split_part(split_part(split_part({url}, '://', 2), '/', 1), '@', -1), ':', 1)), '[.]+$', ''), '.') as labels,
           {language} as language, least({width}, {height}) as side, {punsafe} as punsafe
      from read_parquet($files)
)
select sample_id,
       -- the registered domain, about: a.example.co.uk is example.co.uk; of blogs on one host, and of IP addresses, the host's end
       md5_number_lower(array_to_string(labels[case when length(labels[-1]) = 2 and length(labels[-2]) <= 3 then -3 else -2 end:], '.')) as site,
       coalesce(language, 'nolang') as language,
       coalesce(try_cast(floor(log2(nullif(side, 0))) as tinyint), -1) as size,
       -- finer where releases' thresholds are: 0.45 and 0.95 are Re-LAION's, 0.5 the aesthetics'
       case when punsafe is null or isnan(punsafe) then -1 when punsafe < 0.02 then 0 when punsafe < 0.1 then 1 when punsafe < 0.25 then 2
            when punsafe <= 0.45 then 3 when punsafe < 0.5 then 4 when punsafe < 0.8 then 5 when punsafe <= 0.95 then 6 else 7 end::tinyint as punsafe
  from read;

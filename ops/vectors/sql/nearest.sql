-- Nearest neighbours in SQL: pgvector's halfvec and HNSW beside the database's own tables, in a schema of their own.
-- For an admin; `drop schema nearest cascade` takes it all away. Once:
--
--     psql "$DATABASE_URL" -f nearest.sql
--
-- Then for a release, whose SAMPLE_IDs are named first (here by duckdb), by the digest in its manifest.json:
--
--     duckdb -csv -noheader -c "select SAMPLE_ID from 'release/part-*.parquet'" |
--       psql "$DATABASE_URL" -c 'copy nearest.sample from stdin'
--     psql "$DATABASE_URL" -c "select nearest.build('f7a7a670…')"
--
-- and the ten images nearest to that of a sample, with what was removed since left out:
--
--     select * from nearest.search(nearest.image_of(16384), 10);

create extension if not exists vector;
create schema nearest;
comment on schema nearest is 'Nearest neighbours of a release by pgvector: made by nearest.sql, may be dropped at any time.';

create table nearest.sample (sample_id bigint primary key);
comment on table nearest.sample is 'The samples of the release that is searched: filled by its admin.';
comment on column nearest.sample.sample_id is 'SAMPLE_ID of the release';

create function nearest.to_halfvec(p_embedding bytea) returns public.halfvec
language sql immutable strict parallel safe
as $$
    -- IEEE 754 binary16, little-endian: a sign, five bits of exponent, ten of mantissa
    select case when bool_and((h >> 10) & 31 < 31) then array_agg((case when h >= 32768 then -1 else 1 end)
                     * (case when (h >> 10) & 31 = 0 then (h & 1023) * 2.0::double precision ^ -24
                             else (1024 + (h & 1023)) * 2.0::double precision ^ (((h >> 10) & 31) - 25) end)
                     order by i)::real[]::public.halfvec end
      from (select i, get_byte(p_embedding, 2 * i) + 256 * get_byte(p_embedding, 2 * i + 1) as h
              from generate_series(0, octet_length(p_embedding) / 2 - 1) i) half
$$;
comment on function nearest.to_halfvec is 'mill.embedding.image or .text as pgvector has it; the same numbers, bit by bit. Null for one that is not finite.';

create function nearest.build(p_digest text) returns bigint
language plpgsql
as $$
declare
    m mill.model;
    found bigint;
begin
    select * into m from mill.model where digest = p_digest;
    if m.model_id is null then
        raise exception 'the database has no model with the weights %', p_digest;
    end if;
    drop table if exists nearest.embedding;
    -- an HNSW index wants to know the dims
    execute format('create table nearest.embedding (sample_id bigint primary key, image public.halfvec(%s) not null)', m.dims);
    comment on table nearest.embedding is 'Image embeddings of the samples in nearest.sample, by one model.';
    comment on column nearest.embedding.sample_id is 'SAMPLE_ID of the release';
    comment on column nearest.embedding.image is 'L2-normalised';
    insert into nearest.embedding
    select h.sample_id, h.image
      from (select x.sample_id, nearest.to_halfvec(e.image) as image
              from nearest.sample x
              join mill.current_score s
                on s.batch_id = x.sample_id >> 14 and s.n = x.sample_id & 16383 and s.model_id = m.model_id and s.outcome = 0
              join mill.embedding e
                on e.batch_id = s.batch_id and e.n = s.n and e.attempt = s.attempt and e.model_id = s.model_id
               and e.submission_id = s.submission_id
            offset 0) h  -- converted once
     where h.image is not null;
    get diagnostics found = row_count;
    perform nearest.remove();
    create index embedding_image_idx on nearest.embedding using hnsw (image public.halfvec_cosine_ops);
    analyze nearest.embedding;
    return found;
end
$$;
comment on function nearest.build is
    'Makes nearest.embedding and its index for the samples in nearest.sample; returns how many of them have one that is finite. '
    'maintenance_work_mem that holds the index makes it much faster.';

create function nearest.remove() returns bigint
language plpgsql
as $$
declare
    gone bigint;
begin
    delete from nearest.embedding e
     using mill.removed r
     where r.batch_id = e.sample_id >> 14 and r.n = e.sample_id & 16383;
    get diagnostics gone = row_count;
    return gone;
end
$$;
comment on function nearest.remove is 'Deletes what a removal names by now; VACUUM then takes it out of the index and the file.';

create function nearest.image_of(p_sample_id bigint) returns public.halfvec
language plpgsql stable
as $$
begin
    return (select image from nearest.embedding where sample_id = p_sample_id);
end
$$;
comment on function nearest.image_of is 'The image embedding of a sample; null if it has none.';

create function nearest.search(p_query public.halfvec, p_count integer)
returns table (sample_id bigint, similarity double precision, url text, text text)
language plpgsql
-- what a removal names is passed over, and the scan goes on until there are enough
set hnsw.iterative_scan = strict_order
set hnsw.ef_search = 100
as $$
begin
    return query
    select e.sample_id, 1 - (e.image operator(public.<=>) p_query), p.url, p.text
      from nearest.embedding e
      join mill.pair p on p.batch_id = e.sample_id >> 14 and p.n = (e.sample_id & 16383)::integer  -- report.pair makes a batch for each
     where not exists (select from mill.removed_pair r where r.batch_id = p.batch_id and r.n = p.n)
       and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
     order by e.image operator(public.<=>) p_query
     limit p_count;
end
$$;
comment on function nearest.search is 'The samples whose images are nearest to an embedding, nearest first, without what is removed.';

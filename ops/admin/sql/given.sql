-- Entries as they were given, and their other spellings under the same place.

create temporary table given (
    place bigint, is_spelling boolean, source text, md5 uuid, sha1 bytea, sha256 bytea, dhash bigint, pdq bytea, pdq_distance smallint,
    sample_id bigint, host text, prefix text, subdomains boolean
) on commit drop

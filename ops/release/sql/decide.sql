-- What the conditions of a recipe decide of each candidate: the code of the first that holds; 1: none does.

select sample_id, cast(case {conditions} else 1 end as smallint) as reason from ({candidate}) candidate

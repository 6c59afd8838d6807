-- Parts of a pair's URL.

-- Without a call that the planner cannot inline: views ask for the host of millions of URLs. The regular expression reads the
-- authority alone, half as long as a URL at most.
create function mill.host(url text) returns text
language sql immutable parallel safe
as $$
    select rtrim(lower(substring(split_part(url, '/', 3) from '^(?:[^?#]*@)?(\[[^]]*\]|[^:?#]*)')), '.')
$$;
comment on function mill.host is 'The host of an http(s) URL, in lower case, without user, port and final dot.';

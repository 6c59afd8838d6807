-- the number of a host, and the range of those below it
select
    min(code) filter (reversed = $host) as own,
    min(code) filter (reversed <> $host) as first,
    max(code) filter (reversed <> $host) as last
from {host}
where reversed = $host or (reversed >= $host || '.' and reversed < $host || '/')

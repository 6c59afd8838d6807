select name, kind, base, dims, left(digest, 12) as digest, revision, licence, active_since, retired_at, is_default from report.model
 order by retired_at is not null, kind <> 'clip', name limit 200

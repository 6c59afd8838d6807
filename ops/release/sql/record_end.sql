-- What is known of a release once it is written.

update mill.release
   set manifest_sha256 = %(sha256)s, candidates = %(candidates)s, kept = %(kept)s, excluded = %(excluded)s,
       unfinished = %(unfinished)s, words = %(words)s, methods = %(methods)s
 where release_id = %(release_id)s

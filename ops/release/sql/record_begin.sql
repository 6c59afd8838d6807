-- The record of a release that is being built: its counts come in the end, in the same transaction.

insert into mill.release (name, version, recipe, manifest_sha256, candidates, kept, excluded, unfinished, words, methods)
values (%(name)s, %(version)s, %(recipe)s, '', 0, 0, '{}', '{}', '{}', '{}')
returning release_id

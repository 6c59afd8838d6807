-- Views of the releases that were recorded, and of what they decided.

create view report.release as
select r.release_id, r.name, r.version, r.built_at, r.built_by, r.candidates, r.kept, r.excluded, r.unfinished, r.recipe,
       r.manifest_sha256,
       r.release_id = max(r.release_id) over (partition by r.name) as is_newest
  from mill.release r;
comment on view report.release is 'Releases that were built and recorded.';
comment on column report.release.release_id is 'Key';
comment on column report.release.name is 'Name of its recipe';
comment on column report.release.version is 'Version of its recipe';
comment on column report.release.built_at is 'When the build began, whose state of the database it has';
comment on column report.release.built_by is 'The login that built it';
comment on column report.release.candidates is 'Pairs that it looked at: kept + the sum of excluded';
comment on column report.release.kept is 'Pairs in it';
comment on column report.release.excluded is 'Pairs left out, by the first reason that held';
comment on column report.release.unfinished is 'Work that was not done when it was built, by what; {} where all was done';
comment on column report.release.recipe is 'The recipe with every value, overrides applied';
comment on column report.release.manifest_sha256 is 'sha256 of `pairmill release show --json`, for the folder in hand';
comment on column report.release.is_newest is 'Whether it is the newest record of its name';

create view mill.newest_release_batch as
select b.batch_id, r.name, r.words, b.decisions
  from mill.release r
  join mill.release_batch b using (release_id)
 where not exists (select from mill.release later where later.name = r.name and later.release_id > r.release_id);
comment on view mill.newest_release_batch is
    'What the newest release of each name decided of a batch. words[get_byte(decisions, n)] is the word for a pair; null: it was no candidate.';

comment on column mill.newest_release_batch.batch_id is 'As release_batch.batch_id';
comment on column mill.newest_release_batch.name is 'As release.name';
comment on column mill.newest_release_batch.words is 'As release.words';
comment on column mill.newest_release_batch.decisions is 'As release_batch.decisions';

create view report.release_decision as
select r.name, r.release_id, b.batch_id, n::integer as n, mill.sample_id(b.batch_id, n::integer) as sample_id,
       r.words[get_byte(d.bytes, n::integer)] as decision
  from mill.release r
  join mill.release_batch b using (release_id)
       -- read from TOAST once a batch, and not once a pair: 1.5 million pairs in 0.3 s and not in 30
 cross join lateral (select b.decisions || ''::bytea as bytes offset 0) d
 cross join lateral generate_series(0, length(d.bytes) - 1) n
 where get_byte(d.bytes, n::integer) > 0;
comment on view report.release_decision is
    'What a release decided of each pair. Name a release_id: see report.release.is_newest; and a range of batch_id, where one batch will do.';
comment on column report.release_decision.name is 'As report.release.name';
comment on column report.release_decision.release_id is 'As report.release.release_id';
comment on column report.release_decision.batch_id is 'As report.pair.batch_id';
comment on column report.release_decision.n is 'As report.pair.n';
comment on column report.release_decision.sample_id is 'As report.pair.sample_id';
comment on column report.release_decision.decision is 'kept, or the first reason for which it is left out';

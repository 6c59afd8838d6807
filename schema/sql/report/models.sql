-- Views of models and taggers.

create view report.model as
select m.name, m.pretrained, m.digest, m.dims, m.active_since, m.kind, b.name as base, m.labels, m.revision, m.licence, m.metrics, m.retired_at,
       coalesce(m.model_id = (select d.model_id from mill.default_model d), false) as is_default
  from mill.model m
  left join mill.model b on b.model_id = m.base_model_id;
comment on view report.model is 'The models that score, and the taggers.';
comment on column report.model.name is 'open_clip''s model name, the folder of a model, or a tagger''s name';
comment on column report.model.pretrained is 'open_clip''s tag or a checkpoint''s path; empty where the name says it all';
comment on column report.model.digest is 'sha256 of the weights';
comment on column report.model.dims is 'Length of an embedding';
comment on column report.model.active_since is 'Since when new batches are scored by it';
comment on column report.model.kind is 'clip, or of a tagger: head, zero-shot (both read embeddings) or pixels';
comment on column report.model.base is 'A tagger''s CLIP model';
comment on column report.model.labels is 'zero-shot: names of the categories';
comment on column report.model.revision is 'Version of the weights';
comment on column report.model.licence is 'Licence of the weights; empty where none was given';
comment on column report.model.metrics is 'Metrics on held-out data';
comment on column report.model.retired_at is 'When it was retired and scores nothing more; null while it is active';
comment on column report.model.is_default is
    'Whether it is the default model, whose similarity report.sample shows: setting.default_model_id, else the oldest CLIP model that is active';

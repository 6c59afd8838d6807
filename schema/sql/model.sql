-- Models and taggers: added, and retired.

create function mill.add_model(
    p_name text, p_pretrained text, p_digest text, p_dims integer, p_kind text default 'clip', p_base_id integer default null,
    p_labels text[] default null, p_revision text default '', p_licence text default '', p_metrics jsonb default '{}',
    p_weights bytea default null,
    out model_id integer, out queued integer, out unreachable integer
)
language plpgsql
as $$
#variable_conflict use_column
begin
    -- a task that is being finished looks for taggers before this transaction or after it, never between
    perform from mill.model m where m.model_id = p_base_id for no key update;
    insert into mill.model (name, pretrained, digest, dims, kind, base_model_id, labels, revision, licence, metrics, weights)
    values (p_name, p_pretrained, p_digest, p_dims, p_kind, p_base_id, p_labels, p_revision, p_licence, p_metrics, p_weights)
    on conflict (digest) do update
       set name = excluded.name, pretrained = excluded.pretrained,
           -- a model that is added again, to queue the rest, often comes without these
           revision = coalesce(nullif(excluded.revision, ''), model.revision),
           licence = coalesce(nullif(excluded.licence, ''), model.licence),
           metrics = coalesce(nullif(excluded.metrics, '{}'), model.metrics),
           retired_at = null
    returning model.model_id into model_id;
    -- what it was to read may be gone since it was retired: then only a backfill helps
    update mill.task t set state = 'ready', attempts = 0, ready_at = now(), changed_at = now()
     where add_model.model_id in (t.model_id, t.for_model_id) and t.state = 'discarded' and t.reason = 'its model was retired'
       and (t.kind <> 'score' or p_kind not in ('clip', 'pixels')
            or exists (select from mill.task d where d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt and d.slot is not null));
    perform mill.queue_scoring(t.batch_id, t.attempt, add_model.model_id)
       from mill.task t where t.kind = 'download' and t.state = 'done' and t.slot is not null and p_kind = 'clip';
    perform mill.queue_tagger(m, 0, 9223372036854775807) from mill.model m where m.model_id = add_model.model_id;
    select count(*) into queued from mill.task t where t.model_id = add_model.model_id and t.state = 'ready';
    select count(*) into unreachable
      from mill.task d
     where d.kind = 'download' and d.state = 'done' and d.slot is null and not d.is_replica and d.for_model_id is null and p_kind in ('clip', 'pixels')
       and not exists (select from mill.task s
                        where s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt and s.model_id = add_model.model_id
                          and s.state <> 'discarded');
end
$$;
comment on function mill.add_model is
    'Adds a model or a tagger, and queues the batches that it can be computed for: those whose thumbnails are still there, '
    'or for a head those that have embeddings of its CLIP model. unreachable: downloads whose thumbnails are gone, so that only backfill_model helps.';

create function mill.queue_tagger(m mill.model, p_first_batch bigint, p_last_batch bigint) returns bigint
language sql
as $$
    with queued as (
        insert into mill.task (kind, batch_id, attempt, model_id)
        select 'score', t.batch_id, t.attempt, m.model_id
          from mill.task t
          join mill.task d on d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt
         where t.kind = 'score' and t.model_id = m.base_model_id and t.state = 'done' and t.batch_id between p_first_batch and p_last_batch
           and (m.kind <> 'pixels' or d.slot is not null)
         order by t.task_id
        on conflict do nothing
        returning 1
    )
    select count(*) from queued
$$;
comment on function mill.queue_tagger is
    'Queues a tagger for the batches that its CLIP model has scored and that it was not queued for, of pixels where the thumbnails are still there. '
    'Returns how many.';

create function mill.retire_model(p_model_id integer, out busy bigint, out discarded bigint)
language plpgsql
as $$
begin
    perform from mill.model where model_id = p_model_id for no key update;
    perform from mill.task where p_model_id in (model_id, for_model_id) and state in ('ready', 'leased', 'submitted', 'parked') order by task_id for update;
    -- a download for it that is at work is no hindrance: its thumbnails are for other models, too
    select count(*) filter (where state in ('leased', 'submitted') and model_id = p_model_id), count(*) filter (where state in ('ready', 'parked')) into busy, discarded
      from mill.task where p_model_id in (model_id, for_model_id) and state in ('ready', 'leased', 'submitted', 'parked');
    if busy = 0 then
        update mill.model set retired_at = coalesce(retired_at, now()) where model_id = p_model_id;
        update mill.task set state = 'discarded', reason = 'its model was retired', changed_at = now()
         where p_model_id in (model_id, for_model_id) and state in ('ready', 'parked');
    end if;
end
$$;
comment on function mill.retire_model is
    'Retires a model or tagger: its ready tasks are discarded, its results stay. Changes nothing while tasks of it are leased or await '
    'acceptance (busy). add_model makes it active again.';

-- Presence: which models the workers of today have. An idle worker asks every few seconds; at most one call a minute writes.

create function mill.note_presence(p_worker_id integer, p_model_id integer) returns void
language plpgsql
as $$
begin
    -- a look first: ON CONFLICT … WHERE locks the row, a write, before it looks
    if not exists (select from mill.presence p
                    where p.worker_id = p_worker_id and p.model_id = p_model_id and p.asked_at > now() - interval '1 minute') then
        insert into mill.presence (worker_id, model_id) values (p_worker_id, p_model_id)
        on conflict (worker_id, model_id) do update set asked_at = now();
    end if;
end
$$;
comment on function mill.note_presence is 'Notes, once a minute, that a worker asks for tasks of a model.';

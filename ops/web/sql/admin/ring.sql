select slot, state, batches from mill.thumbnail_slot order by slot

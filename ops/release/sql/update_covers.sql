select sample_id from mill.cover_row

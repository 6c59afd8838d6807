select worker, state, seconds, is_waiting from mill.long_sessions(15)

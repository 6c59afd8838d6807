"""Facts: finished batches as immutable Parquet files, beside the database or in place of its rows."""

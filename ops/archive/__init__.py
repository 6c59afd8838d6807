"""Facts: finished batches as immutable Parquet files, beside the database's rows or instead."""

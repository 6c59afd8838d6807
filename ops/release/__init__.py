"""Releases: the pairs that a recipe keeps, as Parquet files with a manifest."""

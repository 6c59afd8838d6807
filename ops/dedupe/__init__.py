"""Duplicates among the rows of a release: exact, near, semantic, and those of evaluation sets."""

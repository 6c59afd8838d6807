"""Embeddings of a release as arrays, and an index of nearest neighbours over them."""

"""Pairmill: image-text datasets from Common Crawl, with PostgreSQL at the centre."""

__version__ = "0.1.0"

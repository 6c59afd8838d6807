r"""FetchRun a list of image URLs into shards, as `pairmill fetch` does; needs no database."""

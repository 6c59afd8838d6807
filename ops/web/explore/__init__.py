"""Pages over releases: what is in them, and whether something of somebody's is."""

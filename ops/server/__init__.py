"""The embedded PostgreSQL, which runs where DATABASE_URL names no other server."""

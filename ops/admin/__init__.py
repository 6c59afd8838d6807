"""What an administrator does with the database: connect, migrate, add people and models, watch."""

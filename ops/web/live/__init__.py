"""The public page: how far the line has come, who lends machines, and how to join."""

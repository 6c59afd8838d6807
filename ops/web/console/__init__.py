"""The admin's page: who may come in, what they see, and what they may do once it is confirmed."""

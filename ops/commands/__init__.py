"""The groups of the command `pairmill`: options in, a call of a room, a table or JSON out."""

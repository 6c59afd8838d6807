"""The command `pairmill`, and a folder for each thing that it does."""

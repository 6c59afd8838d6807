"""Preparing taggers: heads from published files, from ratings, from the words of a prompt."""

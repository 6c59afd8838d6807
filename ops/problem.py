"""What a command says when it cannot go on."""


class Problem(Exception):
    """One sentence for the person who ran the command: what is wrong, and what to do."""

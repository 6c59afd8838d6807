"""What was tried with a volunteer's login, a file a theme."""

from support.hostile_login import Cases
from support.volunteer import calls, floods, lies, statements, transactions

THEMES = (statements, calls, floods, lies, transactions)
CASES = Cases({name: case for theme in THEMES for name, case in theme.CASES.items()})
assert len(CASES) == sum(len(theme.CASES) for theme in THEMES)

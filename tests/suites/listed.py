"""How a suite's script ends: each disagreement with its reason, and the exit code."""

from collections.abc import Mapping
from pathlib import Path


def report(
    path: Path, passed: int, cases: int, wrong: Mapping[object, str], listed: Mapping[object, str]
) -> int:
    """Print how many cases pass, and each that does not. wrong: the disagreements, by case, in
    words. listed: their reasons. Returns 1 if one is not listed, or a listed one is none, else 0."""
    print(f"{path}: {passed} of {cases} pass")
    for case, found in wrong.items():
        print(f"  {case}: {found}: {listed.get(case, 'NOT LISTED')}")
    for case in listed.keys() - wrong.keys():
        print(f"  {case} is listed, and agrees")
    return int(wrong.keys() != listed.keys())

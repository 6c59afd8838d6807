"""The table of `make coverage`: lines and branches by folder, from `coverage json` on standard input."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

KNOWN = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def by_folder(files: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Sums of the counts of coverage's report, by the folder of each file and of all."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for path, file in files.items():
        for folder in (path.rpartition("/")[0], "all"):
            sums[folder].update({each: file["summary"][each] for each in KNOWN})
    return {folder: sums[folder] for folder in [*sorted(sums.keys() - {"all"}), "all"]}


def table(sums: Mapping[str, Counter[str]]) -> Iterator[str]:
    yield f"{'folder':<28}{'lines':>8}{'covered':>9}{'branches':>10}{'covered':>9}"
    for folder, found in sums.items():
        lines, branches = (
            f"{100 * found[covered] / found[all_]:.1f} %" if found[all_] else "-"
            for covered, all_ in zip(KNOWN[::2], KNOWN[1::2], strict=True)
        )
        yield (
            f"{folder:<28}{found['num_statements']:>8}{lines:>9}{found['num_branches']:>10}{branches:>9}"
        )


if __name__ == "__main__":
    print("\n".join(table(by_folder(json.load(sys.stdin)["files"]))))

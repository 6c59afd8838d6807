"""The memory that an extraction takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

# /proc, since a child's ru_maxrss is its parent's where that is larger
EXTRACT = """
import sys
from pairmill.workers.extract.extract import Counts, extract
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.rows import rows_in_parts
detect = LanguageDetector().detect
with open(sys.argv[1], "rb") as file:
    pairs = sum(len(part.pairs) for part in rows_in_parts(extract(file, Counts()), 1, detect))
status = open("/proc/self/status").read()
print(pairs, status.partition("VmHWM:")[2].split()[0])
"""


def extraction_peak(wat: Path) -> tuple[int, int]:
    """Pairs of a WAT file, and the peak of the process that extracted them, in bytes. Linux only."""
    done = subprocess.run(
        [sys.executable, "-c", EXTRACT, str(wat)], check=True, capture_output=True, text=True
    )
    pairs, kilobytes = map(int, done.stdout.split())
    return pairs, 1024 * kilobytes

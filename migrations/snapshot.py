"""python -m pairmill.migrations.snapshot: keep this release's routines for who goes back to it.

Part of making a release: writes ``migrations/routines/<newest revision>.sql.gz``, the same bytes
for the same routines.
"""

import gzip
from pathlib import Path

from pairmill import migrations
from pairmill.schema import routines


def write(folder: Path) -> Path:
    """Write the snapshot into a folder, which is made, and return its path."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{migrations.revisions()[-1]}.sql.gz"
    file.write_bytes(gzip.compress(routines.script().encode(), 9, mtime=0))
    return file


if __name__ == "__main__":
    print(write(migrations.SNAPSHOTS[0]))

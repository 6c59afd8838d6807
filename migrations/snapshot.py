"""python -m pairmill.migrations.snapshot: keep this release's routines for who goes back to it.

Part of making a release: writes ``migrations/routines/<newest revision>.sql.gz``, the same bytes
for the same routines.
"""

import gzip
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from pairmill import migrations
from pairmill.schema.create import routines


def write(folder: Path) -> Path:
    """Write the snapshot into a folder, which is made, and return its path."""
    config = Config()
    config.set_main_option("script_location", str(migrations.HERE))
    head = ScriptDirectory.from_config(config).get_current_head()
    folder.mkdir(exist_ok=True)
    file = folder / f"{head}.sql.gz"
    file.write_bytes(gzip.compress(routines().encode(), 9, mtime=0))
    return file


if __name__ == "__main__":
    print(write(migrations.SNAPSHOTS[0]))

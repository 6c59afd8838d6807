"""The last steps of the demo: its release is proved and given a card, then a pair is taken down."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds

from pairmill.workers.safe_text import say

# what a hub asks of a data set, and no database knows
PUBLISHED = (
    "--creator", "Pairmill's demo", "--date-published", "2026-01-01", "--url", "https://demo.example/",
)  # fmt: skip
# of the demo's own site: a copy of an image on another host, which goes with it
TAKEN_DOWN = "http://mirror.example/found/0.jpg"


def publish(release: Path, cli: Callable[..., None], said: Callable[[str], None]) -> Path:
    """Check a release, write its card and statistics beside it, take ``TAKEN_DOWN`` down, and
    compare the next version with it, whose folder is returned. In a second run the release itself
    is without that pair, and has no next version: its own folder is returned.

    cli: runs a command of pairmill, and raises UserError where it fails.
    """
    card, after = (release.with_name(f"{release.name}-{name}") for name in ("card", "next"))
    for folder in (card, after):
        shutil.rmtree(folder, ignore_errors=True)
    said("card")
    cli("release", "check", str(release))
    cli("release", "card", str(release), "--to", str(card), *PUBLISHED)
    said("removal")
    rows = ds.dataset(sorted(release.glob("*.parquet")))
    if not rows.count_rows(filter=ds.field("URL") == TAKEN_DOWN):
        say(f"{TAKEN_DOWN} was taken down by an earlier run: this release is without it")
        return release
    cli("removal", "add", TAKEN_DOWN, "--reason", "the demo takes a pair down")
    # a removal that everybody may know of needs no covers, and no batch to hide in
    cli("release", "update", str(release), "--out", str(after), "--covers", "0", "--urgent")
    cli("release", "diff", str(release), str(after))
    return after

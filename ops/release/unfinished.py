"""The work that a release built now would not see: what is queued, under way, or given up."""

import psycopg

from pairmill.ops.queries import query_text
from pairmill.ops.release.decisions import Decisions
from pairmill.ops.release.selection import Selection

# what is counted -> its words for people, one and many
WORDS = {
    "wat_files": ("WAT file to extract", "WAT files to extract"),
    "open_batches": ("batch open", "batches open"),
    "pairs_in_open_batches": ("pair in it", "pairs in them"),
    "downloads": ("batch to download", "batches to download"),
    "retries": ("retry of a batch's downloads", "retries of batches' downloads"),
    "backfills": (
        "batch to download again for its model",
        "batches to download again for its model",
    ),
    "scorings": ("batch to score or tag", "batches to score or tag"),
    "submissions": ("submission to accept", "submissions to accept"),
    "given_up": ("task given up or parked", "tasks given up or parked"),
    "pairs_not_downloaded": ("pair not downloaded", "pairs not downloaded"),
    "pairs_not_scored": ("pair not scored", "pairs not scored"),
    "pairs_not_tagged": ("pair not tagged", "pairs not tagged"),
}
# these will not change by waiting alone: what they are comes of the other ones, or of an admin
NO_WORK = {"given_up", "pairs_not_downloaded", "pairs_not_scored", "pairs_not_tagged"}
Unfinished = dict[str, int]


def of_tasks(connection: psycopg.Connection, selection: Selection) -> Unfinished:
    """Counts by what is queued, under way or given up; what is 0 is left out."""
    text = query_text("release", "unfinished")
    cursor = connection.execute(text, {"models": selection.model_ids()})
    (row,) = cursor.fetchall()
    names = [column.name for column in cursor.description or ()]
    return {name: count for name, count in zip(names, row, strict=True) if count}


def with_pairs(found: Unfinished, decisions: Decisions) -> Unfinished:
    """The same, with the pairs that are left out for want of work."""
    pairs = {
        f"pairs_{reason}": decisions.excluded[reason]
        for reason in ("not_downloaded", "not_scored", "not_tagged")
    }
    return found | {name: count for name, count in pairs.items() if count}


def has_work(found: Unfinished) -> bool:
    """Whether waiting, with workers at work, would bring more into the release."""
    return bool(found.keys() - NO_WORK)


def sentence(found: Unfinished) -> str:
    """The counts in words: "2 WAT files to extract, 1 batch open, …"."""
    return ", ".join(f"{count:,} {WORDS[name][count != 1]}" for name, count in found.items())
